"""`tunedeck predict --auto`: each text by the adapter whose training texts are nearest."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command

import tunedeck as td
from tunedeck.deck.choice import fit_centroids, text_vectors

TEXTS = {"low": [f"w{4 + row % 9} w{5 + row % 7} w6" for row in range(80)]}
TEXTS["high"] = [text.replace("w", "w10") for text in TEXTS["low"]]


@pytest.fixture
def adapters(tmp_path: Path) -> list[str]:
    """Options that name an adapter for each kind of texts."""
    deck = tiny_models.deck_of("bert", "classifier")
    for seed, (name, texts) in enumerate(TEXTS.items()):
        tiny_models.add_stirred(deck, name, td.LoraConfig(r=2), labels=[f"{name}-a", f"{name}-b"], seed=seed)
        centroids = fit_centroids(text_vectors(deck.base, deck.router, texts))
        deck.adapter(name).manifest = deck.adapter(name).manifest.model_copy(update={"centroids": centroids})
        deck.save(name, tmp_path / name)
    return ["--adapter", str(tmp_path / "low"), "--adapter", str(tmp_path / "high"), "--dtype", "float32", "--auto"]


def test_each_text_has_one_answer(tunedeck: Command, adapters: list[str]) -> None:
    said = tunedeck("predict", *adapters, "--json", "w4 w5 w6", "w104 w105 w106")
    assert [one["adapter"] for one in json.loads(said.out)["predictions"]] == ["low", "high"]


def test_a_text_near_to_none_is_an_error(tunedeck: Command, adapters: list[str]) -> None:
    said = tunedeck("predict", *adapters, "w4 w5 w6", "w50 w60")
    assert said.code == 2
    assert "no adapter is near the text 'w50 w60'" in said.err


def test_a_row_near_to_none_is_written_without_a_prediction(
    tunedeck: Command, adapters: list[str], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,w104 w105 w106\n2,w50 w60\n3,w4 w5 w6\n")
    said = tunedeck("predict", *adapters, "--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert said.code == 0, said.err
    assert "1 row is near to no adapter and has no prediction" in said.err
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "text", "adapter", "certainty", "predicted", "score"]
    assert [(row["adapter"], row["predicted"][:3]) for row in rows] == [("high", "hig"), ("", ""), ("low", "low")]
