"""Files that are read piece by piece give what they give when they are read whole."""

from __future__ import annotations

import gzip
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunedeck as td
from tunedeck.core.errors import DataError
from tunedeck.data import files, pieces, stored
from tunedeck.data.labelled import Example
from tunedeck.data.pairs import Pair
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import StoredExamples
from tunedeck.data.write import row_writer
from tunedeck.tasks.base import Dataset, TrainableTask
from tunedeck.tasks.classify import data
from tunedeck.tasks.classify.data import read_labelled

ROWS: list[dict[str, object]] = [
    {"id": n, "text": f"text {n % 60}" + "!" * (n % 2), "label": "xyz"[n % 3]} for n in range(100)
]


SCORED: list[dict[str, object]] = [{"text": row["text"], "score": n % 5} for n, row in enumerate(ROWS)]
TAGGED: list[dict[str, object]] = [
    {"text": row["text"], "entities": [[0, 4, "xy"[n % 2]]] if n % 3 else []} for n, row in enumerate(ROWS)
]
CHATS: list[dict[str, object]] = [
    {
        "messages": [
            {"role": "user", "content": f"ask {n % 40}"},
            {"role": "assistant", "content": f"say \ud83d {n % 60}"},
        ]
    }
    for n in range(100)
]
PAIRS: list[dict[str, object]] = [
    {"anchor": f"a {n % 40}", "positive": f"b {n % 60}", **({"negative": f"c {n}"} if n == 3 else {})}
    for n in range(100)
]


@pytest.fixture(autouse=True)
def small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "PIECE", 7)
    monkeypatch.setattr(pieces, "PIECE", 7)
    yield
    assert not list((tmp_path / "cache").glob("rows-*/*"))  # the files go with their readers


def read(path: Path, **settings: object) -> Dataset[Example]:
    return read_labelled(DataSettings.model_validate({"train": str(path), **settings}), multi_label=False, labels=None)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz", "a.jsonl.gz"])
def test_pieces_give_the_examples_of_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with row_writer(tmp_path / name.removesuffix(".gz")) as write:
        write(ROWS)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name.removesuffix(".gz")).read_bytes()))
    whole = read(tmp_path / name, train_size=40, eval_fraction=0.2)
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    parts = read(tmp_path / name, train_size=40, eval_fraction=0.2)
    assert isinstance(parts.train, StoredExamples)
    assert list(parts.train) == whole.train
    assert list(parts.evaluation) == whole.evaluation
    assert (parts.sha256, parts.labels, parts.description) == (whole.sha256, whole.labels, whole.description)
    assert (parts.train[-1], list(parts.train[2:4])) == (whole.train[-1], whole.train[2:4])
    del parts


def jsonl(path: Path, rows: list[dict[str, object]]) -> DataSettings:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSettings(train=str(path), eval_fraction=0.2, train_size=40)


@pytest.mark.parametrize(("task", "rows"), [(td.Score(), SCORED), (td.Tag(), TAGGED), (td.Embed(), ROWS)])
def test_pieces_of_other_tasks_give_the_examples_of_the_whole(
    task: TrainableTask, rows: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = jsonl(tmp_path / "a.jsonl", rows)
    whole = task.read(settings)
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    parts = task.read(settings)
    assert isinstance(parts.train, StoredExamples)
    assert (list(parts.train), list(parts.evaluation)) == (list(whole.train), list(whole.evaluation))
    assert (parts.sha256, parts.labels, parts.description) == (whole.sha256, whole.labels, whole.description)
    assert (parts.task_values, parts.text_column) == (whole.task_values, whole.text_column)
    del parts


@pytest.mark.parametrize(("task", "rows"), [(td.Generate(), CHATS), (td.Embed(), PAIRS)])
def test_prompts_and_anchors_stay_on_one_side(
    task: TrainableTask, rows: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(example: Any) -> str:
        return example.anchor if isinstance(example, Pair) else example.prompt[0].content

    settings = jsonl(tmp_path / "a.jsonl", rows).model_copy(update={"train_size": None})
    whole = task.read(settings)
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    parts = task.read(settings)
    assert isinstance(parts.train, StoredExamples)
    held_out = {asked(one) for one in parts.evaluation}
    assert len(held_out) == 8  # a fifth of the questions
    assert held_out.isdisjoint(asked(one) for one in parts.train)
    assert {*parts.train, *parts.evaluation} == {*whole.train, *whole.evaluation}
    (tmp_path / "eval.jsonl").write_text(json.dumps(rows[7]) + "\n")
    apart = task.read(settings.model_copy(update={"eval": str(tmp_path / "eval.jsonl")}))
    assert asked(apart.evaluation[0]) not in {asked(one) for one in apart.train}
    del parts, apart


def test_faults_are_told_as_for_a_file_that_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    lines = [json.dumps(row) for row in ROWS]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines[:20], "{", *lines[20:]]))
    with pytest.raises(DataError, match="line 21: not valid JSON"):
        read(path)
    path.write_text("\n".join([*lines[:20], '{"text": "a", "label": null}']))
    with pytest.raises(DataError, match=r"missing labels .*\(rows 7\).*counted from row 15"):
        read(path)
    text = b'{"text": "' + b"a" * 1000 + b'", "label": "x"}\n'
    path.write_bytes(text * 90 + '{"text": "é", "label": "y"}\n'.encode("latin-1") * 2)
    with pytest.raises(DataError, match="is not utf-8"):
        read(path, encoding="utf-8")
    assert "is read as cp1252" in read(path, deduplicate=False).notes[0]
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read(path)


def test_rows_without_text_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{'' if n % 5 == 0 else n},{'xy'[n % 2]}\n" for n in range(50)))
    assert len(read(path, drop_empty=True).train) == 36


def test_what_a_killed_process_left_behind_goes_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    old, recent = tmp_path / "cache" / "rows-old", tmp_path / "cache" / "rows-recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, time.time() - stored.LEFT_BEHIND_S - 60))
    with row_writer(tmp_path / "a.csv") as write:
        write(ROWS)
    read(tmp_path / "a.csv")
    assert not old.exists()
    assert recent.exists()


def test_memory_grows_by_less_than_a_hundred_bytes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    monkeypatch.setattr(pieces, "PIECE", 500)
    monkeypatch.setattr(stored, "PIECE", 500)
    monkeypatch.setattr(data, "CHECKED", 500)
    peaks = []
    for rows in (2_000, 10_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text("text,label\n" + "".join(f"a text of some length {n},{'xy'[n % 2]}\n" for n in range(rows)))
        tracemalloc.start()
        assert len(read(path).train) == 0.9 * rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 8_000 < 100  # read whole, a row takes 800 bytes


def test_a_gzip_file_is_unpacked_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"a,x\nb,y\n" * 5000))
    monkeypatch.setattr(files, "MOST_BYTES_WHOLE", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(path)
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    monkeypatch.setattr(pieces, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(path)
    monkeypatch.setattr(pieces, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(pieces, "LONGEST_LINE", 1 << 10)
    path.write_bytes(gzip.compress(b"text,label\na,x\n" + b"0" * 10_000))
    with pytest.raises(DataError, match="line 3 has more than 1,024 characters"):
        read(path)
    path.write_bytes(gzip.compress(b"text,label\n" + b"a,x\nb,y\n" * 5000)[:-20])
    with pytest.raises(DataError, match="is damaged or not a gzip file"):
        read(path)
