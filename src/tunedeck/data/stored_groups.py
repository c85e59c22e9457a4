"""Stored examples that have a key in common: the first of each group, and groups that are held out whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from tunedeck.data.stored import StoredExamples, deduplicated_places, text_digests

E = TypeVar("E")
_Key = Callable[[E], str]


def first_of_each(examples: StoredExamples[E], key: _Key[E]) -> StoredExamples[E]:
    """Return the first of each group of equal keys."""
    return examples.select(deduplicated_places(map(key, examples), len(examples)))


def divided(
    examples: StoredExamples[E], key: _Key[E], fraction: float, seed: int
) -> tuple[StoredExamples[E], StoredExamples[E]]:
    """Return training and held-out examples, no key in both: a fraction of the keys is drawn, at least one of them.

    With one key alone, nothing is held out.
    """
    own = text_digests(map(key, examples), len(examples))
    keys = np.unique(own)
    count = min(len(keys) - 1, max(1, round(len(keys) * fraction)))
    drawn = keys[random.Random(seed).sample(range(len(keys)), count)]
    held_out = np.isin(own, drawn)
    return examples.select(np.flatnonzero(~held_out)), examples.select(np.flatnonzero(held_out))


def without_keys(examples: StoredExamples[E], key: _Key[E], keys: Iterable[str], count: int) -> StoredExamples[E]:
    """Return the examples whose key is none of `count` keys."""
    taken = text_digests(iter(keys), count)
    own = text_digests(map(key, examples), len(examples))
    return examples.select(np.flatnonzero(~np.isin(own, taken)))


def drawn(examples: Sequence[E], places: Sequence[int]) -> Sequence[E]:
    """Return the examples at some places, in that order; stored ones stay on disk."""
    if isinstance(examples, StoredExamples):
        return examples.select(places)
    return [examples[place] for place in places]
