"""Files that are read piece by piece give what they give when they are read whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data import stored
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import StoredExamples
from tunedeck.data.write import row_writer
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.data import read_labelled

ROWS: list[dict[str, object]] = [
    {"id": n, "text": f"text {n % 60}" + "!" * (n % 2), "label": "xyz"[n % 3]} for n in range(100)
]


@pytest.fixture(autouse=True)
def small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "PIECE", 7)
    yield
    assert not list((tmp_path / "cache").glob("rows-*/*"))  # the files go with their readers


def read(path: Path, **settings: object) -> Dataset[Example]:
    return read_labelled(DataSettings.model_validate({"train": str(path), **settings}), multi_label=False, labels=None)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_pieces_give_the_examples_of_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with row_writer(tmp_path / name) as write:
        write(ROWS)
    whole = read(tmp_path / name, train_size=40, eval_fraction=0.2)
    monkeypatch.setattr(stored, "LARGE_BYTES", 1)
    pieces = read(tmp_path / name, train_size=40, eval_fraction=0.2)
    assert isinstance(pieces.train, StoredExamples)
    assert list(pieces.train) == whole.train
    assert list(pieces.evaluation) == whole.evaluation
    assert (pieces.sha256, pieces.labels, pieces.description) == (whole.sha256, whole.labels, whole.description)
    assert (pieces.train[-1], list(pieces.train[2:4])) == (whole.train[-1], whole.train[2:4])
    del pieces


def test_faults_are_told_as_for_a_file_that_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LARGE_BYTES", 1)
    lines = [json.dumps(row) for row in ROWS]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines[:20], "{", *lines[20:]]))
    with pytest.raises(DataError, match="line 21: not valid JSON"):
        read(path)
    path.write_text("\n".join([*lines[:20], '{"text": "a", "label": null}']))
    with pytest.raises(DataError, match=r"missing labels .*\(rows 7\).*counted from row 15"):
        read(path)
    path.write_bytes(b'{"text": "a", "label": "x"}\n' * 9000 + '{"text": "é", "label": "x"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="is not utf-8"):
        read(path)
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read(path)


def test_rows_without_text_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LARGE_BYTES", 1)
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{'' if n % 5 == 0 else n},{'xy'[n % 2]}\n" for n in range(50)))
    assert len(read(path, drop_empty=True).train) == 36


def test_what_a_killed_process_left_behind_goes_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LARGE_BYTES", 1)
    old, recent = tmp_path / "cache" / "rows-old", tmp_path / "cache" / "rows-recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, time.time() - stored.LEFT_BEHIND_S - 60))
    with row_writer(tmp_path / "a.csv") as write:
        write(ROWS)
    read(tmp_path / "a.csv")
    assert not old.exists()
    assert recent.exists()
