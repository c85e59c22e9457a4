"""Pairs of texts that are read together, and their token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final


@final
class TextPair(str):
    """Two texts that a model reads together, as one string that shows both."""

    __slots__ = ("first", "second")
    first: str
    second: str

    def __new__(cls, first: str, second: str) -> TextPair:
        """Join the texts for display and comparison; `first` and `second` are what a model reads."""
        pair = super().__new__(cls, f"{first} | {second}")
        pair.first, pair.second = first, second
        return pair

    def __reduce__(self) -> tuple[type[TextPair], tuple[str, str]]:
        return TextPair, (self.first, self.second)


@final
class PairIds(list[int]):
    """The token ids of a pair with the special ones, and the type of each: 0 in the first text, 1 in the second."""

    def __init__(self, ids: Iterable[int], types: Sequence[int]) -> None:
        super().__init__(ids)
        self.types = list(types)


def pair_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of two texts are kept so that both fit into `room`: the longer one is cut first.

    As `longest_first` of the tokenizers library; once both are cut, the longer one keeps the odd token.
    """
    if first + second <= room:
        return first, second
    half = room // 2
    if first > second:
        return max(room - second, room - half), min(second, half)
    return min(first, half), max(room - first, room - half)
