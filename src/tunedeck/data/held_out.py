"""A fixed division of a data set: whole families on one side, and no near copy of a training text on the other."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict

from tunedeck.data.files import Rows

TEST_SHARE = 0.1
WORDS_IN_A_ROW = 5
COPIED_SHARE = 0.5
"""A test text of which this share of word sequences stands in one training text is a near copy."""


def divided(rows: Rows, by: str, unlike: str | None = None) -> tuple[Rows, Rows]:
    """Training and test rows, the same on every machine.

    All rows with the same value in column `by` stand on one side, about TEST_SHARE of these values in the test side.
    With `unlike`, test rows whose text in that column is a near copy of a training text are left out.
    """
    train = [row for row in rows if not _is_test(str(row[by]))]
    test = [row for row in rows if _is_test(str(row[by]))]
    if unlike is not None:
        copied = _copied_shares([str(row[unlike]) for row in train], [str(row[unlike]) for row in test])
        test = [row for row, share in zip(test, copied, strict=True) if share < COPIED_SHARE]
    return train, test


def _is_test(value: str) -> bool:
    return int.from_bytes(hashlib.sha256(value.encode()).digest()[:4], "big") < TEST_SHARE * 2**32


def _copied_shares(train: list[str], test: list[str]) -> list[float]:
    """For each test text, the largest share of its word sequences that one training text has."""
    wanted = [_sequences(text) for text in test]
    known = set().union(*wanted)
    places: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(train):
        for sequence in _sequences(text) & known:
            places[sequence].append(number)
    shares = []
    for sequences in wanted:
        counts = Counter(number for sequence in sequences for number in places[sequence])
        shares.append(max(counts.values(), default=0) / len(sequences))
    return shares


def _sequences(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[at : at + WORDS_IN_A_ROW]) for at in range(max(1, len(words) - WORDS_IN_A_ROW + 1))}
