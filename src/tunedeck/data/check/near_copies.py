"""Texts that are nearly the same, by MinHash over their character sequences (Broder 1997), in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE = 4
"""Characters of a sequence."""
ALIKE = 0.75
"""Two texts are near copies where this share of their different sequences occurs in both (Jaccard index)."""
_SHORTEST = 12
"""Characters; of shorter texts one other character changes too many sequences."""
_BANDS, _BAND_ROWS = 16, 4
"""Texts that agree in one band are compared: 0.999 of those that are alike by 0.75, 0.3 of those by 0.4."""
_CHUNK = 10_000

Hashes = NDArray[np.uint64]


def near_copies(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs (first, later) of near copies among normalised texts, at most one for each later text."""
    numbers = [number for number, text in enumerate(texts) if len(text) >= _SHORTEST]
    keys = np.concatenate(
        [np.zeros((0, _BANDS), np.uint64)]
        + [_band_keys([texts[n] for n in numbers[at : at + _CHUNK]]) for at in range(0, len(numbers), _CHUNK)]
    )
    found: dict[int, int] = {}
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        same = keys[order[1:], band] == keys[order[:-1], band]
        first = order[0] if len(order) else 0
        for place in np.flatnonzero(same):
            if not (place and same[place - 1]):
                first = order[place]
            one, other = numbers[first], numbers[order[place + 1]]
            if other not in found and alike(texts[one], texts[other]) >= ALIKE:
                found[other] = one
    return sorted((first, later) for later, first in found.items())


def alike(one: str, other: str) -> float:
    """Return the share of two texts' different character sequences that occurs in both."""
    first, second = (
        {text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))} for text in (one, other)
    )
    return len(first & second) / len(first | second)


def _band_keys(texts: Sequence[str]) -> Hashes:
    """Return a key for each text (rows) and band (columns)."""
    lengths = np.array([len(text) for text in texts])
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashed = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for place in range(SHINGLE):
        hashed = hashed * np.uint64(0x100000001B3) + codes[place : place + len(hashed)]
    hashed = _mixed(hashed)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    inside = np.ones(len(codes), bool)  # not the sequences that reach into the next text
    for back in range(1, SHINGLE):
        inside[starts[1:] - back] = False
    hashed = np.where(inside[: len(hashed)], hashed, np.uint64(2**64 - 1))
    keys = np.zeros((len(texts), _BANDS), np.uint64)
    for band in range(_BANDS):
        for row in range(_BAND_ROWS):
            seed = np.uint64(0x9E3779B97F4A7C15 * (band * _BAND_ROWS + row + 1) % 2**64)
            smallest = np.minimum.reduceat(np.where(hashed == 2**64 - 1, hashed, _mixed(hashed ^ seed)), starts)
            keys[:, band] = _mixed(keys[:, band] * np.uint64(31) + smallest)
    return keys


def _mixed(values: Hashes) -> Hashes:
    """Mix 64 bits so that each depends on all (the end of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed
