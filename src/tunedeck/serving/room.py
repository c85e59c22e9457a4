"""Room for keys and values: which rows decode in one batch, so that short answers do not take as much of it as long ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from tunedeck.generation.decode import DecodingBatch


@final
@dataclass(eq=False)
class Group:
    """Rows that decode in one batch. Each takes as many positions as the longest of them may come to have."""

    company: str | None
    """Rows of another company have another base (`company_of`)."""
    lengths: dict[int, int] = field(default_factory=dict)
    """Positions that each row may come to have."""
    batch: DecodingBatch | None = None

    @property
    def reserved(self) -> int:
        """Positions that the batch may come to take."""
        return len(self.lengths) * max(self.lengths.values(), default=0)

    def added(self, length: int) -> int:
        """Positions that one more row would add."""
        return (len(self.lengths) + 1) * max([length, *self.lengths.values()]) - self.reserved


def place(groups: Sequence[Group], company: str | None, length: int, free: int) -> Group | None:
    """The group for a row of `length` positions, of those there are or a new one; None while it has to wait.

    One batch is faster than two, so rows join while half of the `free` positions is left. After that a row joins where it adds no
    more than twice its length. All groups together reserve no more than `free`, except for a row that is alone.
    """
    taken = sum(group.reserved for group in groups)
    if not taken:
        return Group(company)
    joinable = [group for group in groups if group.company == company]
    if joinable:
        best = min(joinable, key=lambda group: group.added(length))
        added = best.added(length)
        if taken + added <= free // 2 or (added <= 2 * length and taken + added <= free):
            return best
    return Group(company) if taken + length <= free else None
