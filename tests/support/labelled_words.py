"""A tiny labelled data set that a random tiny encoder can learn: the first word decides the label."""

from __future__ import annotations

import csv
import random
from pathlib import Path

WORD_OF = {"red": "w10", "green": "w20", "blue": "w30"}


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) pairs, no text twice."""
    chooser = random.Random(seed)
    texts: dict[str, str] = {}
    while len(texts) < count:
        label = chooser.choice(list(WORD_OF))
        words = [WORD_OF[label], *(f"w{chooser.randint(40, 119)}" for _ in range(chooser.randint(2, 8)))]
        texts[" ".join(words)] = label
    return list(texts.items())


def write_csv(path: Path, pairs: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    """A UTF-8 CSV file of the pairs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(pairs)
    return path
