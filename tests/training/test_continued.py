"""A run that goes on from an adapter keeps what it knows where earlier data is replayed, and learns new labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import labelled_words, tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterError, ConfigError
from tunedeck.deck.heads import last_linear
from tunedeck.training.continued import changes


def test_new_labels_leave_the_logits_of_the_others_as_they_are() -> None:
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "a", td.LoraConfig(r=2), labels=("no", "yes"))
    batch = tiny_models.token_batch(3, 7)
    before = tiny_models.logits_of(deck, batch, "a")
    deck.add_labels("a", ["maybe"])
    assert torch.equal(tiny_models.logits_of(deck, batch, "a")[:, :2], before)
    assert deck.label_names("a") == ("no", "yes", "maybe")
    assert last_linear(deck.adapter("a").head).out_features == 3
    with pytest.raises(AdapterError, match="cannot get the labels yes"):
        deck.add_labels("a", ["yes"])


def test_what_got_better_and_worse_is_told() -> None:
    before = {"a": (5, 10), "b": (9, 10), "c": (4, 4)}
    after = {"a": (8, 10), "b": (6, 10), "c": (4, 4), "new": (3, 3)}
    assert changes(before, after) == [
        "held-out texts of the earlier labels: 18 of 24 right before, 18 after",
        "got better: a 5 → 8 / 10",
        "got worse: b 9 → 6 / 10",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of two labels, with data of these and of a third one."""
    folder = tmp_path_factory.mktemp("continued")
    rows = labelled_words.rows(240)
    labelled_words.write_csv(folder / "old.csv", [row for row in rows[:160] if row[1] != "blue"])
    labelled_words.write_csv(folder / "new.csv", [row for row in rows[160:] if row[1] == "blue"])
    values = {
        "model": tiny_models.folder_of("bert", "classifier"),
        "data": {"train": str(folder / "old.csv")},
        "method": {"kind": "lora", "r": 4},
        "dtype": "float32",
    }
    td.train_run(values, out=folder / "first", progress=False)
    return folder


def test_a_run_goes_on_with_a_new_label_and_replayed_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = str(folder / "first" / "adapter")
    values = {
        "start_from": start,
        "data": {"train": str(folder / "new.csv")},
        "replay": str(folder / "old.csv"),
        "training": {"epochs": 10, "learning_rate": 0.01},
        "dtype": "float32",
    }
    before = {file.name: file.read_bytes() for file in Path(start).iterdir()}
    (run,) = td.train_run(values, out=folder / "second", progress=True).values()
    assert run.start  # the head is fitted to texts of all labels before the first step
    said = capsys.readouterr().err
    assert "new labels: blue" in said
    assert "held-out texts of the earlier labels" in said
    deck = td.Deck.open(folder / "second" / "adapter", dtype="float32")
    assert deck.label_names("second") == ("green", "red", "blue")
    metrics = td.evaluate(deck, str(folder / "old.csv")).metrics["second"]
    assert metrics["accuracy"] > 0.5
    blue = [text for text, label in labelled_words.rows(240) if label == "blue"]
    assert sum(answer.label == "blue" for answer in deck.predict(blue, adapter="second")) > len(blue) / 2
    assert before == {file.name: file.read_bytes() for file in Path(start).iterdir()}
    with pytest.raises(Exception, match="finished"):
        td.train_run(values, out=folder / "second", resume=True, progress=False)


def test_a_head_is_not_fitted_to_texts_that_lack_labels_of_the_adapter(folder: Path, tmp_path: Path) -> None:
    values = {
        "start_from": str(folder / "first" / "adapter"),
        "data": {"train": str(folder / "new.csv")},
        "training": {"max_steps": 1},
        "dtype": "float32",
    }
    (run,) = td.train_run(values, out=tmp_path / "run", progress=False).values()
    assert not run.start


def test_what_does_not_fit_the_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    start, data = str(folder / "first" / "adapter"), {"train": str(folder / "new.csv")}
    with pytest.raises(ConfigError, match="has the method lora, not prompt_tuning"):
        td.train_run({"start_from": start, "data": data, "method": "prompt_tuning"}, out=tmp_path, progress=False)
    with pytest.raises(ConfigError, match="replay goes with"):
        td.train_run({"model": "x", "data": data, "replay": "old.csv"}, out=tmp_path, progress=False)
    with pytest.raises(ConfigError, match="not the folder of a classifier"):
        td.train_run({"start_from": str(tmp_path), "data": data}, out=tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="folds begin with fresh"):
        td.train_run({"start_from": start, "data": data, "folds": 2}, out=tmp_path / "run", progress=False)
