"""train, eval, predict, compare and plan for entities, end to end on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import tagged_words, tiny_models
from support.command_line import Command

from tunedeck.core.i18n import set_language
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.tag.data import read_examples

BASE = ("--model", tiny_models.folder_of("bert", "unpooled"), "--task", "tag", "--dtype", "float32")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tagged_words.write_jsonl(tmp_path / "train.jsonl", tagged_words.texts(80))


@pytest.fixture
def run_folder(trained: Callable[..., Path], data: Path) -> Path:
    says = [
        "72 texts to train on, 8 held out, 0 repeats left out; entities: ",
        "use it: tunedeck predict --adapter",
        "f1",
    ]
    few = ("--max-steps", 20, "--learning-rate", 0.01)
    return trained("rooms", *BASE, "--data", data, *few, says=says) / "adapter"


def test_an_adapter_finds_entities_and_says_where(tunedeck: Command, run_folder: Path) -> None:
    said = tunedeck("predict", "w50 w10 w11", "w60", "--adapter", run_folder, "--dtype", "float32")
    assert said.code == 0, said.err
    assert "w10 w11 (room)" in said.out
    assert "none" in said.out
    said = tunedeck("predict", "w50 w10 w11", "--adapter", run_folder, "--dtype", "float32", "--json")
    (entity,) = json.loads(said.out)["predictions"][0]["entities"]
    assert (entity["text"], entity["label"], entity["start"], entity["end"]) == ("w10 w11", "room", 4, 11)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_what_is_written_can_be_read_as_tagged_texts(
    tunedeck: Command, run_folder: Path, tmp_path: Path, ending: str
) -> None:
    (tmp_path / "texts.csv").write_text("text\nw50 w10 w11\nw60 w20\nw61\n")
    out = tmp_path / f"found.{ending}"
    asked = ("--adapter", run_folder, "--file", tmp_path / "texts.csv", "--out", out, "--dtype", "float32")
    said = tunedeck("predict", *asked)
    assert said.code == 0, said.err
    found = read_examples(DataSettings(train=str(out)), str(out)).examples
    assert [[span.label for span in one.spans] for one in found] == [["room"], ["device"], []]


def test_evaluation_shows_every_entity_and_every_kind_of_error(
    tunedeck: Command, run_folder: Path, tmp_path: Path
) -> None:
    test = tagged_words.write_jsonl(tmp_path / "test.jsonl", tagged_words.texts(12, seed=9))
    said = tunedeck("eval", "--adapter", run_folder, "--data", test, "--dtype", "float32")
    assert said.code == 0, said.err
    assert "12 texts with 24 entities" in said.out
    for text in ("device", "room", "support", "missed", "invented", "wrong_border", "wrong_label"):
        assert text in said.out
    wrong = tmp_path / "wrong.jsonl"
    said = tunedeck("eval", "--adapter", run_folder, "--data", test, "--dtype", "float32", "--json", "--errors", wrong)
    found = json.loads(said.out)
    rows = [json.loads(line) for line in wrong.read_text().splitlines()]
    assert rows
    assert all(row["label"] != row["predicted"] for row in rows)
    errors = {"missed", "invented", "wrong_border", "wrong_label"}
    assert found["adapters"]["rooms"].keys() == {"f1", "precision", "recall", "loss"} | errors
    assert {one["label"]: one["support"] for one in found["breakdowns"]["rooms"]["labels"]} == {
        "device": 12,
        "room": 12,
    }


def test_methods_are_compared_by_f1(tunedeck: Command, data: Path, tmp_path: Path, in_process: list[str]) -> None:
    out = tmp_path / "c"
    said = tunedeck("compare", *BASE, "--data", data, "--methods", "lora:r=2,head", "--max-steps", 6, "--out", out)
    assert said.code == 0, said.err
    assert in_process == ["lora/0", "head/0"]
    result = json.loads((out / "comparison.json").read_text())
    assert (result["metric"], result["higher_is_better"]) == ("f1", True)
    assert all(row["interval"] is not None for row in result["rows"])


def test_a_card_names_the_task_as_the_model_hub_does(tunedeck: Command, run_folder: Path, tmp_path: Path) -> None:
    said = tunedeck("export", "card", "--adapter", run_folder, "--out", tmp_path / "card", "--licence", "mit")
    assert said.code == 0, said.err
    card = (tmp_path / "card" / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert "td.Tag()" in card


def test_bad_data_is_one_line_in_both_languages(tunedeck: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "w4 w5", "entities": [[0, 2, "A"], [1, 5, "B"]]}\n')
    said = tunedeck("train", *BASE, "--data", tmp_path / "bad.jsonl", "--out", tmp_path / "r")
    assert said.code == 2
    assert "row 1: the entities 'w4' (A, 0-2) and '4 w5' (B, 1-5) overlap" in said.err
    set_language("zh")
    try:
        said = tunedeck("train", *BASE, "--data", tmp_path / "bad.jsonl", "--out", tmp_path / "r")
    finally:
        set_language("en")
    assert "重叠" in said.err
