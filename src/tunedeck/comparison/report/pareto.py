"""The Pareto front: what nothing else beats in both directions."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]], higher_is_better: bool = True) -> list[int]:
    """Numbers of the points (cost, quality) that no other equals in one and beats in the other, by rising cost.

    Less cost is better. Of points that are equal in both, the first stands.
    """
    sign = 1 if higher_is_better else -1
    best = float("-inf")
    found = []
    for number in sorted(range(len(points)), key=lambda number: (points[number][0], -sign * points[number][1], number)):
        if sign * points[number][1] > best:
            found.append(number)
            best = sign * points[number][1]
    return found
