"""train, eval, embed and export for embeddings, end to end on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy
import pytest
from support import embedding_decks, tiny_models
from support.command_line import Command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return embedding_decks.write_jsonl(tmp_path / "pairs.jsonl", [asdict(pair) for pair in embedding_decks.pairs(60)])


@pytest.fixture
def run_folder(trained: Callable[..., Path], data: Path) -> Path:
    model = ("--model", tiny_models.folder_of("bert", "plain"), "--task", "embed", "--dtype", "float32")
    few = ("--max-steps", 4, "--learning-rate", 0.01, "--set", "task.chunk_size=8")
    says = ["54 pairs to train on, 6 pairs held out", "use it: tunedeck embed --adapter", "ndcg@10"]
    return trained("found", *model, *few, "--data", data, says=says) / "adapter"


def test_evaluation_takes_pairs_scored_pairs_and_the_bare_base(
    tunedeck: Command, run_folder: Path, data: Path, tmp_path: Path
) -> None:
    said = tunedeck("eval", "--adapter", run_folder, "--data", data, "--include-base", "--dtype", "float32", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["description"] == "60 pairs"
    assert found["adapters"].keys() == {"found", "base"}
    assert found["adapters"]["found"]["mrr"] != found["adapters"]["base"]["mrr"]
    rows = [
        {"left": pair.anchor, "right": pair.positive, "grade": n % 5} for n, pair in enumerate(embedding_decks.pairs(9))
    ]
    scored = embedding_decks.write_jsonl(tmp_path / "sts.jsonl", rows)
    columns = ("--anchor", "left", "--positive", "right", "--score", "grade")
    said = tunedeck("eval", "--adapter", run_folder, "--data", scored, *columns, "--json")
    assert json.loads(said.out)["adapters"]["found"].keys() == {"spearman", "pearson"}


def test_vectors_are_printed_or_written(tunedeck: Command, run_folder: Path, tmp_path: Path) -> None:
    said = tunedeck("embed", "w10 w11", "w12", "--adapter", run_folder, "--dtype", "float32")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["text"] for row in rows] == ["w10 w11", "w12"]
    assert numpy.linalg.norm(rows[0]["vector"]) == pytest.approx(1.0, abs=1e-5)
    deck = embedding_decks.embed_deck()
    deck.load_adapter(run_folder, "a")
    assert rows[0]["vector"] == pytest.approx(deck.embed(["w10 w11"], "a")[0].tolist(), abs=1e-6)
    for name in ("v.npy", "v.jsonl"):
        said = tunedeck("embed", "w10 w11", "w12", "--adapter", run_folder, "--out", tmp_path / name)
        assert f"2 vectors of {tiny_models.HIDDEN}" in said.err
    assert numpy.load(tmp_path / "v.npy").shape == (2, tiny_models.HIDDEN)
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 2


def test_the_bare_base_makes_vectors_too(tunedeck: Command) -> None:
    said = tunedeck("embed", "w10", "--model", tiny_models.folder_of("bert", "plain"), "--query", "--dtype", "float32")
    assert json.loads(said.out)["vector"] == pytest.approx(
        embedding_decks.embed_deck().embed(["w10"])[0].tolist(), abs=1e-6
    )


def test_an_adapter_is_exported_for_sentence_transformers(tunedeck: Command, run_folder: Path, tmp_path: Path) -> None:
    said = tunedeck("export", "sentence-transformers", "--adapter", run_folder, "--out", tmp_path / "st")
    assert said.code == 0, said.err
    assert "SentenceTransformer(" in said.err
    assert {"modules.json", "model.safetensors", "1_Pooling"} <= {file.name for file in (tmp_path / "st").iterdir()}
    again = tunedeck("export", "sentence-transformers", "--adapter", run_folder, "--out", tmp_path / "st")
    assert again.code == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("embed", "w10"), "name an adapter folder or a base"),
        (("embed", "w10", "--model", "x", "--out", "v.txt"), "vectors are written as .npy or .jsonl"),
    ],
)
def test_mistakes_are_one_line(tunedeck: Command, arguments: tuple[str, ...], text: str) -> None:
    said = tunedeck(*arguments)
    assert said.code == 2
    assert text in said.err


def test_predict_points_to_embed(tunedeck: Command, run_folder: Path) -> None:
    said = tunedeck("predict", "--adapter", run_folder, "w10")
    assert said.code == 2
    assert "tunedeck embed" in said.err
