"""Each text is predicted by an adapter that has not seen it, and the interval is wider than that of the folds alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from support import labelled_words, tiny_models

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.data.labelled import Example
from tunedeck.training.folds import fold_of_each, summary


def test_the_folds_share_out_every_label() -> None:
    examples = [Example(str(row), ("rare" if row % 10 == 0 else "frequent",)) for row in range(103)]
    folds = fold_of_each(examples, 5, seed=0)
    assert set(Counter(folds).values()) == {20, 21}
    rare = Counter(fold for fold, example in zip(folds, examples, strict=True) if example.labels == ("rare",))
    assert set(rare.values()) == {2, 3}
    with pytest.raises(DataError, match="fewer than 5 folds"):
        fold_of_each(examples[:4], 5, seed=0)


def test_the_interval_is_the_corrected_one() -> None:
    found = summary([{"accuracy": value} for value in (0.8, 0.9)])["metrics"]["accuracy"]
    half = 12.706 * math.sqrt(0.005) * math.sqrt(1 / 2 + 1)  # variance 0.005, one part tests and one trains
    assert (found["mean"], found["high"] - found["mean"]) == pytest.approx((0.85, half))


def values(data: Path, out: Path) -> dict[str, object]:
    return {
        "model": tiny_models.folder_of("bert", "classifier"),
        "data": {"train": str(data)},
        "method": {"kind": "full", "layers": "head"},
        "dtype": "float32",
        "folds": 3,
        "out": str(out),
    }


def test_every_text_is_predicted_once_and_a_resumed_run_gives_the_same(tmp_path: Path) -> None:
    data = labelled_words.write_csv(tmp_path / "data.csv", labelled_words.rows(90))
    runs = td.train_run(values(data, tmp_path / "run"), progress=False)
    assert list(runs) == ["fold-1", "fold-2", "fold-3"]
    written = (tmp_path / "run" / "out-of-fold.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in written.splitlines()]
    assert {row["text"]: row["label"] for row in rows} == dict(labelled_words.rows(90))
    found = json.loads((tmp_path / "run" / "folds.json").read_text(encoding="utf-8"))
    right = sum(row["label"] == row["predicted"] for row in rows) / 90
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(right)
    assert "temperature" not in found["metrics"]
    with pytest.raises(ConfigError, match="holds an earlier run"):
        td.train_run(values(data, tmp_path / "run"), progress=False)
    (tmp_path / "run" / "out-of-fold.jsonl").unlink()
    td.train_run(values(data, tmp_path / "run"), resume=True, progress=False)
    assert (tmp_path / "run" / "out-of-fold.jsonl").read_text(encoding="utf-8") == written


def test_the_check_of_the_data_ranks_labels_by_the_predictions(tmp_path: Path) -> None:
    pairs = labelled_words.rows(90)
    wrong = pairs[7][0]
    flipped = list(pairs)
    flipped[7] = (wrong, "green" if pairs[7][1] != "green" else "blue")
    data = labelled_words.write_csv(tmp_path / "data.csv", flipped)
    lines = [
        {"text": text, "probabilities": {name: 0.8 if name == label else 0.1 for name in labelled_words.WORD_OF}}
        for text, label in pairs
    ]
    file = tmp_path / "out-of-fold.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    found = td.data_check(str(data), predictions=file).suspicious
    assert [(one.row, one.suggested) for one in found] == [(found[0].row, pairs[7][1])]
    assert found[0].text == wrong
    file.write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"not the out-of-fold\.jsonl"):
        td.data_check(str(data), predictions=file)
    file.write_text(json.dumps({"text": "other", "probabilities": {"red": 1.0}}), encoding="utf-8")
    with pytest.raises(DataError, match="no prediction"):
        td.data_check(str(data), predictions=file)


def test_jobs_and_tasks_without_labelled_texts_have_no_folds(tmp_path: Path) -> None:
    data = labelled_words.write_csv(tmp_path / "data.csv", labelled_words.rows(30))
    shared = values(data, tmp_path / "run")
    with pytest.raises(ConfigError, match="do not go with jobs"):
        td.train_run({**shared, "jobs": [{"name": "a"}, {"name": "b"}]}, progress=False)
