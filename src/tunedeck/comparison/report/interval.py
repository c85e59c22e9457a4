"""Confidence intervals: over seeds by Student's t, over held-out examples by the bootstrap, of a median by ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from tunedeck.comparison.report.values import Interval
from tunedeck.core.student_t import t_95

RESAMPLES = 2000


def over_seeds(values: Sequence[float]) -> Interval:
    """Return mean ± t · s / √n of two values or more: what another seed would do on the same held-out examples."""
    freedom = len(values) - 1
    half = t_95(freedom) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values) - half, fmean(values) + half, "seeds", len(values))


def of_median(values: Sequence[float]) -> Interval:
    """Return the k-th smallest and the k-th largest value, an interval that contains the median 19 times in 20.

    k is the largest with P(Binomial(n, 1/2) < k) of at most 2.5 % (the sign test's interval: Conover, Practical
    Nonparametric Statistics, section 3.2), 1 where there are fewer than six values.
    """
    ordered, count = sorted(values), len(values)
    rank, below = 0, 1 / 2**count
    while below <= 0.025:
        rank += 1
        below += math.comb(count, rank) / 2**count
    rank = max(1, rank)
    return Interval(ordered[rank - 1], ordered[-rank], "rounds", count)


def over_examples(scores: Sequence[float], weights: Sequence[float] | None = None) -> Interval:
    """Return the middle 95 % of the weighted mean over examples drawn again with replacement: what other texts would
    do.

    Percentile bootstrap (Efron 1979) of RESAMPLES draws from a fixed seed, so that the same scores give the same
    interval. Where all are right (1) or all wrong (0), drawing again says nothing; the far end is then 3 / n away, the
    "rule of three" (Hanley and Lippman-Hand 1983).
    """
    import numpy as np

    reach = min(1.0, 3 / len(scores))
    if set(scores) == {1.0}:
        return Interval(1 - reach, 1.0, "examples", len(scores))
    if set(scores) == {0.0}:
        return Interval(0.0, reach, "examples", len(scores))
    values = np.asarray(scores, dtype=float)
    weight = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    generator = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, len(values), len(values))
        means.append(float(values[drawn] @ weight[drawn] / weight[drawn].sum()))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high), "examples", len(values))
