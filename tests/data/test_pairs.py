"""Pairs, triplets and scored pairs out of tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.labelled import Example
from tunedeck.data.pairs import Pair, ScoredPair
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.embed.data import read_embedding_data, read_examples


def write(folder: Path, rows: list[dict[str, Any]], name: str = "data.jsonl") -> str:
    """A file of the rows, in the form its ending names."""
    path = folder / name
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        mark = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [mark.join(rows[0]), *(mark.join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def read(path: str, **settings: Any) -> list[Any]:
    return list(read_examples(path, DataSettings(train=path, **settings))[0])


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.json", "d.jsonl", "d.parquet"])
def test_triplets_come_out_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    rows = [{"anchor": "a", "positive": "b", "negative": "c"}, {"anchor": "d", "positive": "e", "negative": ""}]
    assert read(write(tmp_path, rows, name)) == [Pair("a", "b", "c"), Pair("d", "e", None)]


@pytest.mark.parametrize(
    "columns",
    [("query", "answer"), ("Question", "Passage"), ("sentence1", "sentence2"), ("text1", "text2"), ("问题", "答案")],
)
def test_usual_names_of_pairs_are_known(columns: tuple[str, str], tmp_path: Path) -> None:
    path = write(tmp_path, [dict(zip(columns, ("a", "b"), strict=True))])
    assert read(path) == [Pair("a", "b")]


def test_named_columns_win_and_a_score_makes_scored_pairs(tmp_path: Path) -> None:
    path = write(tmp_path, [{"sentence1": "a", "sentence2": "b", "score": "2.5", "x": "q", "y": "r"}])
    assert read(path) == [ScoredPair("a", "b", 2.5)]
    with pytest.raises(DataError, match="no column 'anker'"):
        read(path, anchor="anker")
    other = write(tmp_path, [{"x": "q", "y": "r", "label": 1}], "other.jsonl")
    assert read(other, anchor="x", positive="y") == [Pair("q", "r")]


def test_other_columns_are_labelled_texts(tmp_path: Path) -> None:
    assert read(write(tmp_path, [{"text": "a", "label": 1}])) == [Example("a", ("1",))]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"sentence1": "a", "sentence2": "b", "label": 0}], "keep only the rows whose texts belong together"),
        ([{"query": "a", "answer": "b"}, {"query": "", "answer": "b"}], r"pairs with an empty text: 1 \(rows 2\)"),
        ([{"query": "a", "answer": "b", "score": "high"}], "row 1: column 'score' holds 'high', not a number"),
        ([{"query": "a", "question": "q", "answer": "b"}], "which column holds the anchor"),
    ],
)
def test_what_cannot_be_used_is_named(rows: list[dict[str, Any]], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        read(write(tmp_path, rows))


def test_empty_pairs_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, [{"query": "a", "answer": "b"}, {"query": " ", "answer": "b"}])
    assert read(path, drop_empty=True) == [Pair("a", "b")]


def test_no_anchor_stands_on_both_sides_and_repeats_are_left_out(tmp_path: Path) -> None:
    rows = [{"query": f"q {n % 20}", "answer": f"a {n}"} for n in range(60)] + [{"query": "Q 0!", "answer": "a 0"}]
    data = read_embedding_data(DataSettings(train=write(tmp_path, rows), eval_fraction=0.2))
    held_out, learnt = ({pair.anchor for pair in part} for part in (data.evaluation, data.train))
    assert len(held_out) == 4
    assert not held_out & learnt
    assert len(data.train) + len(data.evaluation) == 60
    assert data.description.endswith(
        "48 pairs to train on, 12 pairs held out, 1 repeats or texts alone with their label left out"
    )


def test_a_held_out_pair_is_not_learnt_the_other_way_round(tmp_path: Path) -> None:
    train = write(
        tmp_path, [{"query": "b", "answer": "a"}, {"query": "c", "answer": "d"}, {"query": "a", "answer": "z"}]
    )
    held_out = write(tmp_path, [{"query": "a", "answer": "b"}], "eval.jsonl")
    data = read_embedding_data(DataSettings(train=train, eval=held_out))
    assert data.train == [Pair("c", "d")]


def test_labelled_texts_need_company(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": "abc"[n % 3]} for n in range(12)] + [{"text": "alone", "label": "z"}]
    held_out = write(tmp_path, [{"sentence1": "a", "sentence2": "b", "score": 1}], "eval.jsonl")
    data = read_embedding_data(DataSettings(train=write(tmp_path, rows), eval=held_out))
    assert {example.labels[0] for example in data.train} == {"a", "b", "c"}
    assert (data.labels, data.metric_for_best_model) == (None, "spearman")
    with pytest.raises(DataError, match="two labels with two texts or more each"):
        read_embedding_data(DataSettings(train=write(tmp_path, rows[::3]), eval=held_out))


def test_scored_pairs_are_not_learnt_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="scored pairs, which are for evaluation"):
        read_embedding_data(DataSettings(train=write(tmp_path, [{"text1": "a", "text2": "b", "score": 1}])))


def test_sizes_limit_both_sides(tmp_path: Path) -> None:
    path = write(tmp_path, [{"query": f"q {n}", "answer": f"a {n}"} for n in range(50)])
    data = read_embedding_data(DataSettings(train=path, train_size=10, eval_size=3))
    assert (len(data.train), len(data.evaluation)) == (10, 3)
    assert read_embedding_data(DataSettings(train=path, train_size=10, eval_size=3)).sha256 == data.sha256
