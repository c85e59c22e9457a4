"""train, eval, predict, compare, plan and card for scores and for pairs, end to end on a tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command
from support.scored_texts import pairs, texts, write_csv

from tunedeck.core.i18n import set_language

MODEL = ("--model", tiny_models.folder_of("bert", "unpooled"), "--dtype", "float32")
STEPS = ("--max-steps", 20, "--learning-rate", 0.01)


@pytest.fixture
def stars(tmp_path: Path) -> str:
    rows = [(one.text, int(one.scores[0] - 90) // 10) for one in texts(80)]
    return write_csv(tmp_path / "stars.csv", ["review", "stars"], rows)


@pytest.fixture
def relevance(tmp_path: Path) -> str:
    rows = [(one.text.first, one.text.second, int(one.scores[0])) for one in pairs(80)]  # type: ignore[attr-defined]
    return write_csv(tmp_path / "relevance.csv", ["query", "document", "relevance"], rows)


def test_ordinal_scores_from_a_table_to_predictions(tunedeck: Command, stars: str, tmp_path: Path) -> None:
    out = tmp_path / "stars"
    said = tunedeck("train", *MODEL, "--task", "score", "--ordinal", "--data", stars, *STEPS, "--out", out)
    assert said.code == 0, said.err
    assert "stars from 1 to 5: always predicting the mean" in said.err
    said = tunedeck("eval", "--adapter", out / "adapter", "--data", stars, "--dtype", "float32", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    metrics = {"mae", "rmse", "r2", "spearman", "pearson", "kappa", "loss"}
    assert found["adapters"]["stars"].keys() == metrics
    assert "80 examples; stars from 1 to 5" in found["description"]
    said = tunedeck(
        "eval", "--adapter", out / "adapter", "--data", stars, "--dtype", "float32", "--errors", tmp_path / "off.csv"
    )
    assert said.code == 0, said.err
    with (tmp_path / "off.csv").open() as file:
        errors = [float(row["score"]) for row in csv.DictReader(file)]
    assert errors == sorted(errors, reverse=True)
    written = tmp_path / "found.csv"
    said = tunedeck("predict", "--adapter", out / "adapter", "--file", stars, "--out", written, "--dtype", "float32")
    assert said.code == 0, said.err
    with written.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["review", "stars", "predicted"]
    assert {row["predicted"] for row in rows} <= {"1", "2", "3", "4", "5"}


def test_pairs_from_a_table_to_predictions_and_a_card(tunedeck: Command, relevance: str, tmp_path: Path) -> None:
    out = tmp_path / "rank"
    said = tunedeck("train", *MODEL, "--task", "score", "--data", relevance, *STEPS, "--out", out)
    assert said.code == 0, said.err
    adapter = ("--adapter", out / "adapter", "--dtype", "float32")
    said = tunedeck("predict", "w50 w51", "w60 w14", "w50", "w10", *adapter, "--json")
    assert said.code == 0, said.err
    first, second = json.loads(said.out)["predictions"]
    assert (first["text"], first["text_pair"]) == ("w50 w51", "w60 w14")
    assert 0 < second["score"] < 1
    said = tunedeck("predict", "w50 w51", *adapter)
    assert said.code == 2
    assert "'w50 w51' has no second text" in said.err
    said = tunedeck("predict", *adapter, "--file", relevance, "--out", tmp_path / "found.jsonl")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(rows) == 80
    assert all(0 < row["predicted"] < 1 for row in rows)
    said = tunedeck("export", "card", "--adapter", out / "adapter", "--out", tmp_path / "card", "--licence", "mit")
    assert said.code == 0, said.err
    card = (tmp_path / "card" / "README.md").read_text()
    assert 'deck.predict([td.TextPair("...", "...")], adapter=' in card
    assert "td.Score()" in card


def test_methods_are_compared_by_r2(tunedeck: Command, relevance: str, tmp_path: Path, in_process: list[str]) -> None:
    out = tmp_path / "c"
    asked = ("--task", "score", "--data", relevance, "--methods", "lora:r=2,head", "--max-steps", 6, "--out", out)
    said = tunedeck("compare", *MODEL, *asked)
    assert said.code == 0, said.err
    assert in_process == ["lora/0", "head/0"]
    result = json.loads((out / "comparison.json").read_text())
    assert (result["metric"], result["higher_is_better"]) == ("r2", True)
    assert all(row["interval"] is not None for row in result["rows"])
    assert len(result["mistakes"]) > 0


def test_bad_data_is_one_line_in_both_languages(tunedeck: Command, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "bad.csv", ["text", "score"], [("w4", 1), ("w5", "good")])
    for language, says in (("en", "row 2: column 'score' holds 'good', not a number"), ("zh", "'good'")):
        set_language(language)
        try:
            said = tunedeck("train", *MODEL, "--task", "score", "--data", file, "--out", tmp_path / "r")
        finally:
            set_language("en")
        assert said.code == 2
        assert says in said.err
