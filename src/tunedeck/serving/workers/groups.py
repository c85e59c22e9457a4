"""Memory for keys and values: which sequences share a batch, so that short answers reserve less than long ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from tunedeck.generation.decode import DecodingBatch
from tunedeck.generation.sequence import Sequence


@final
@dataclass(eq=False)
class Group:
    """Sequences that decode in one batch. Each takes as many positions as the longest of them may come to have."""

    key: str | None
    """Sequences with another key need another base (`batch_key`)."""
    lengths: dict[Sequence, int] = field(default_factory=dict)
    """Positions that each sequence may come to have."""
    batch: DecodingBatch | None = None

    @property
    def reserved(self) -> int:
        """Return the positions that the batch may come to take."""
        return len(self.lengths) * max(self.lengths.values(), default=0)

    def added(self, length: int) -> int:
        """Return the positions that one more sequence would add."""
        return (len(self.lengths) + 1) * max([length, *self.lengths.values()]) - self.reserved


def place(groups: list[Group], key: str | None, length: int, free: int) -> Group | None:
    """Return the group, an existing or a new one, for a sequence of `length` positions; None while it has to wait.

    One batch is faster than two, so sequences join while half of the `free` positions is left. After that a sequence
    joins where it adds no more than twice its length. All groups together reserve no more than `free`, except for a
    sequence that is alone.
    """
    taken = sum(group.reserved for group in groups)
    if not taken:
        return Group(key)
    joinable = [group for group in groups if group.key == key]
    if joinable:
        best = min(joinable, key=lambda group: group.added(length))
        added = best.added(length)
        if taken + added <= free // 2 or (added <= 2 * length and taken + added <= free):
            return best
    return Group(key) if taken + length <= free else None
