"""Training runs that are stopped and resumed: their data, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import labelled_words
from tunedeck.data.labelled import Example
from tunedeck.data.prepare import digest
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.text_head import HeadObjective


def dataset() -> Dataset[Example]:
    """80 examples to train on, 20 held out."""
    examples = [Example(text, (label,)) for text, label in labelled_words.rows(100)]
    return Dataset("words", examples[:80], examples[80:], digest(examples[:80]), "words", ("blue", "green", "red"))


def left_behind(folder: Path) -> tuple[list[dict[str, object]], str]:
    """The loss curve with its evaluations and end, times left out, and a digest of all the adapter's files but its
    measurement.
    """
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["event"] in ("step", "eval", "end")]
    for line in kept:
        del line["at_s"]
        line.pop("saved_s", None)
    files = [file for file in sorted((folder / "adapter").iterdir()) if file.name != "tunedeck.json"]
    assert files
    return kept, hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def at_loss(
    monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], object], objective: Any = HeadObjective
) -> None:
    """Let something happen when the loss of some rows is asked for the n-th time."""
    plain, asked = objective.loss, [0]

    def loss(self: Any, rows: Any) -> Any:
        asked[0] += 1
        if asked[0] == number:
            happens()
        return plain(self, rows)

    monkeypatch.setattr(objective, "loss", loss)
