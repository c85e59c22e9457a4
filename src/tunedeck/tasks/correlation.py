"""Correlation of two series of numbers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import torch


def correlations(found: Sequence[float], expected: Sequence[float]) -> dict[str, float]:
    """Return the spearman and pearson correlation of two series, each -1 to 1; 0 where one of them never changes.

    Equal values share the mean of their ranks, as in scipy.stats.spearmanr.
    """
    return {"spearman": _pearson(_ranks(found), _ranks(expected)), "pearson": _pearson(found, expected)}


def _pearson(left: Sequence[float], right: Sequence[float]) -> float:
    x, y = (torch.tensor(series, dtype=torch.float64) for series in (left, right))
    x, y = x - x.mean(), y - y.mean()
    size = x.norm() * y.norm()
    return (x @ y / size).item() if size > 0 else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [(bisect_left(order, value) + bisect_right(order, value) + 1) / 2 for value in values]
