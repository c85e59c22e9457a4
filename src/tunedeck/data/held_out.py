"""A fixed division of a data set: whole families on one side, and no near copy of a training text on the other."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict

from tunedeck.data.rows import Rows

TEST_SHARE = 0.1
WITHIN_SHARE = 0.2
WORDS_IN_A_ROW = 5
COPIED_SHARE = 0.5
"""A test text of which this share of word sequences occurs in one training text is a near copy."""


def divided(rows: Rows, by: str, unlike: str | None = None, within: str | None = None) -> tuple[Rows, Rows]:
    """Return training and test rows, the same on every machine.

    All rows with the same value in column `by` are on one side, about TEST_SHARE of these values in the test side.
    With `unlike`, test rows whose text in that column is a near copy of a training text are left out. With `within`,
    such as a column of labels, each of its values has about WITHIN_SHARE of its values of `by` in the test side, and
    one or more in either side where there are several.
    """
    tested = {str(row[by]) for row in rows if _place(str(row[by])) < TEST_SHARE}
    if within is not None:
        tested = _tested_within(rows, by, within)
    train = [row for row in rows if str(row[by]) not in tested]
    test = [row for row in rows if str(row[by]) in tested]
    if unlike is not None:
        copied = _copied_shares([str(row[unlike]) for row in train], [str(row[unlike]) for row in test])
        test = [row for row, share in zip(test, copied, strict=True) if share < COPIED_SHARE]
    return train, test


def _tested_within(rows: Rows, by: str, within: str) -> set[str]:
    values: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        values[str(row[within])].add(str(row[by]))
    counts = {key: min(max(1, round(WITHIN_SHARE * len(found))), len(found) - 1) for key, found in values.items()}
    return {value for key, found in values.items() for value in sorted(found, key=_place)[: counts[key]]}


def _place(value: str) -> float:
    """Return a number from 0 to 1 that looks random and depends on the value alone."""
    return int.from_bytes(hashlib.sha256(value.encode()).digest()[:4], "big") / 2**32


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
