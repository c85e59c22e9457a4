"""Texts, and pairs of texts, with scores that a tiny random encoder can learn."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tunedeck as td
from support import tiny_models
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.score.data import ScoredText, scale_of

KEYS = tuple(f"w{number}" for number in range(10, 15))
"""Words whose place is the score, in tens above 100."""


def texts(count: int, seed: int = 0) -> list[ScoredText]:
    """Texts of a key word among others, no text twice."""
    chooser = random.Random(seed)
    found: dict[str, ScoredText] = {}
    while len(found) < count:
        words = [f"w{chooser.randint(40, 119)}" for _ in range(chooser.randint(1, 3))]
        key = chooser.randrange(len(KEYS))
        words.insert(chooser.randint(0, len(words)), KEYS[key])
        found.setdefault(" ".join(words), ScoredText(" ".join(words), (100.0 + 10 * key,)))
    return list(found.values())


def pairs(count: int, seed: int = 0) -> list[ScoredText]:
    """Pairs of such texts with 1 where the second has the last key word, else 0; what the first has does not matter."""
    firsts, seconds = texts(count, seed), texts(count, seed + 1)
    return [
        ScoredText(td.TextPair(a.text, b.text), (float(b.scores[0] > 120),))
        for a, b in zip(firsts, seconds, strict=True)
    ]


def dataset(examples: Sequence[ScoredText], held_out: int = 20, **settings: Any) -> Dataset[ScoredText]:
    """The examples as read for a task with these settings, the last ones held out."""
    targets = tuple(f"target {number}" for number in range(len(examples[0].scores)))
    train = examples[:-held_out]
    values = scale_of(train, targets, td.Score(**settings), "made up")
    return Dataset("made up", train, examples[-held_out:], "", "", targets, task_values=values)


def score_deck(model_type: str = "bert", form: str = "unpooled", **settings: Any) -> td.Deck:
    """A deck for scores on a tiny base without a head."""
    folder = tiny_models.folder_of(model_type, form)
    return td.Deck.load(folder, td.Score(**settings), dtype="float32", device="cpu")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A CSV file, and its path as text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)
