"""Texts with entities as people and their tools write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import read_table
from tunedeck.tasks.tag.data import read_tagged
from tunedeck.tasks.tag.reading import TaggedText, tagged_texts

TEXT = "Angela met 李雷 in Paris"
ENTITIES = [("Angela", "PER"), ("李雷", "PER"), ("Paris", "LOC")]


def spans(text: str = TEXT) -> list[dict[str, Any]]:
    return [{"start": text.index(one), "end": text.index(one) + len(one), "label": kind} for one, kind in ENTITIES]


def triples() -> list[list[Any]]:
    return [list(span.values()) for span in spans()]


def read(tmp_path: Path, rows: list[Any], name: str = "data.jsonl", **columns: Any) -> list[TaggedText]:
    file = tmp_path / name
    lines = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(lines, encoding="utf-8")
    found = tagged_texts(read_table(str(file)), columns.pop("text", None), columns.pop("label", None), **columns)
    return list(found.examples)


def shown(example: TaggedText) -> list[tuple[str, str]]:
    return [(example.text[span.start : span.end], span.label) for span in example.spans]


def label_studio(result: list[Any], text: str = TEXT) -> dict[str, Any]:
    return {"id": 1, "data": {"text": text}, "annotations": [{"was_cancelled": True}, {"result": result}]}


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "entities": spans()},
        {"text": TEXT, "entities": spans()[::-1]},
        {"text": TEXT, "spans": [{"start_offset": s, "end_offset": e, "label": kind} for s, e, kind in triples()]},
        {"text": TEXT, "slots": [{"start": s, "end": e, "slot": kind} for s, e, kind in triples()]},
        {"id": 7, "text": TEXT, "label": triples()},
        {"id": 7, "text": TEXT, "labels": triples()},
        {"text": TEXT, "label": [{"start": s, "end": e, "text": TEXT[s:e], "labels": [k]} for s, e, k in triples()]},
        label_studio([{"value": {"start": s, "end": e, "labels": [kind]}} for s, e, kind in triples()]),
        {"tokens": TEXT.split(), "ner_tags": ["B-PER", "O", "B-PER", "O", "B-LOC"]},
        {"tokens": TEXT.split(), "tags": ["S-PER", "O", "S-PER", "O", "S-LOC"]},
        {"words": TEXT.split(), "labels": ["I-PER", "O", "I-PER", "O", "I-LOC"]},
    ],
    ids=["spans", "any order", "offsets", "slots", "doccano", "doccano labels", "label studio min", "label studio",
         "tokens", "tags", "words"],
)  # fmt: skip
def test_every_form_gives_the_same_entities(tmp_path: Path, row: dict[str, Any]) -> None:
    # words are joined as their scripts write them
    expected = "Angela met李雷in Paris" if {"tokens", "words"} & set(row) else TEXT
    (example,) = read(tmp_path, [row])
    assert (example.text, shown(example)) == (expected, ENTITIES)
    assert read(tmp_path, [row], "data.json") == [example]


def test_a_cell_of_a_csv_file_holds_the_entities_as_json(tmp_path: Path) -> None:
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "entities"), (TEXT, json.dumps(spans())), ("nobody", "")])
    found = tagged_texts(read_table(str(tmp_path / "data.csv")), None, None).examples
    assert [shown(one) for one in found] == [ENTITIES, []]


def test_columns_are_named_where_they_have_other_names(tmp_path: Path) -> None:
    (example,) = read(tmp_path, [{"said": TEXT, "marks": spans(), "text": "no"}], text="said", label="marks")
    assert shown(example) == ENTITIES


def test_offsets_of_a_browser_are_read_where_the_entity_is_quoted(tmp_path: Path) -> None:
    text = "😀 hi Bob"
    quoted = {"start": 6, "end": 9, "text": "Bob", "labels": ["PER"]}  # UTF-16 counts the emoji twice
    (example,) = read(tmp_path, [{"text": text, "label": [quoted]}])
    assert shown(example) == [("Bob", "PER")]


def test_spaces_around_an_entity_are_left_out(tmp_path: Path) -> None:
    (example,) = read(tmp_path, [{"text": "to Paris now", "entities": [{"start": 2, "end": 9, "label": "LOC"}]}])
    assert shown(example) == [("Paris", "LOC")]


def one(start: Any, end: Any, label: Any = "PER", **more: Any) -> list[dict[str, Any]]:
    return [{"text": TEXT, "entities": [{"start": start, "end": end, "label": label, **more}]}]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"text": TEXT, "entities": [[0, 6, "PER"], [4, 9, "LOC"]]}],
         r"row 1: the entities 'Angela' \(PER, 0-6\) and 'la me' \(LOC, 4-9\) overlap"),
        (one(0, 99), "row 1: the entity PER from 0 to 99 is outside of the text, which has 22 characters"),
        (one(-1, 3), "the entity PER from -1 to 3 is outside"),
        (one(4, 4), "the entity PER from 4 to 4 is outside"),
        (one(6, 7), "holds nothing but spaces"),
        (one("0", 3), "cannot read the entity"),
        (one(0, 3, ""), "cannot read the entity"),
        (one(0, 3, text="Bob"), "is not at its place: the text there is 'Ang'"),
        ([{"text": TEXT, "entities": ["Angela"]}], "cannot read the entity Angela; write"),
        ([{"text": TEXT, "entities": "Angela"}], "the entities are str, not a list"),
        ([{"text": TEXT, "sentiment": "good"}], "which column holds the entities.*--label"),
        ([{"tokens": ["a", "b"], "tags": ["O"]}], "the columns 'tokens' and 'tags' have to hold lists of the same"),
        ([{"tokens": ["a"], "tags": ["PER"]}], "row 1: unknown tag 'PER'; tags are O, or B-, I-, E- or S- and a label"),
        ([{"tokens": ["a"], "tags": [3]}], "unknown tag 3"),
        ([{"tokens": ["a"]}], "which column holds the tags"),
        ([{"data": 3, "annotations": []}], "not a task as Label Studio exports it"),
        ([{"text": " ", "entities": []}], "empty texts in column 'text'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_row(tmp_path: Path, rows: list[Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, rows)


def settings(tmp_path: Path, rows: list[Any], **more: Any) -> DataSettings:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSettings(train=str(tmp_path / "train.jsonl"), deduplicate=False, **more)


def test_the_tags_are_those_of_the_data_in_order(tmp_path: Path) -> None:
    rows = [{"text": TEXT, "entities": spans()} for _ in range(20)]
    dataset = read_tagged(settings(tmp_path, rows), None)
    assert dataset.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert (len(dataset.train), len(dataset.evaluation)) == (18, 2)
    assert "18 texts to train on, 2 held out" in dataset.description
    assert "PER 36, LOC 18" in dataset.description


def test_an_entity_that_no_given_tag_names_is_refused(tmp_path: Path) -> None:
    rows = [{"text": TEXT, "entities": spans()} for _ in range(20)]
    with pytest.raises(DataError, match=r"'Angela' in 'Angela met.*' has the unknown label 'PER'.*known: LOC"):
        read_tagged(settings(tmp_path, rows), ("O", "B-LOC", "I-LOC"))


def test_texts_without_any_entity_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no entity in the texts"):
        read_tagged(settings(tmp_path, [{"text": TEXT, "entities": []}] * 9), None)


def test_repeats_and_texts_of_the_evaluation_file_are_left_out(tmp_path: Path) -> None:
    rows = [{"text": f"Angela went to w{number % 5}", "entities": [[0, 6, "PER"]]} for number in range(20)]
    (tmp_path / "eval.jsonl").write_text(json.dumps(rows[0]) + "\n")
    wanted = settings(tmp_path, rows, eval=str(tmp_path / "eval.jsonl")).model_copy(update={"deduplicate": True})
    dataset = read_tagged(wanted, None)
    assert [example.text[-1] for example in dataset.train] == ["1", "2", "3", "4"]
