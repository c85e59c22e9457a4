"""How far probabilities can be trusted: how often answers are right, by the probability they were given with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

BINS = 15
"""Bins of equal width, as in Guo et al., arXiv 1706.04599."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose probability is in one bin: their number, mean probability and the share that is right."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Expected calibration error and Brier score (0 is best for both), and the bins that are not empty.

    The error is the mean distance between probability and share of right answers over the bins (Guo et al., arXiv
    1706.04599, section 2). The Brier score is the squared distance between probabilities and truth: summed over the
    labels of a text where it has one label, else the mean over all pairs of text and label.
    """

    ece: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class TemperatureScaling:
    """An adapter's probabilities without its temperature and with it."""

    temperature: float
    before: Reliability
    after: Reliability


def binned(confidences: Sequence[float], right: Sequence[bool]) -> tuple[float, tuple[Bin, ...]]:
    """Return the expected calibration error of probabilities, 0 to 1, and their bins."""
    found: list[list[int]] = [[] for _ in range(BINS)]
    for place, confidence in enumerate(confidences):
        found[min(int(confidence * BINS), BINS - 1)].append(place)
    bins = [
        Bin(
            len(places),
            sum(confidences[place] for place in places) / len(places),
            sum(right[place] for place in places) / len(places),
        )
        for places in found
        if places
    ]
    error = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(confidences)
    return error, tuple(bins)


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers given and right ones among them; `low` and `high` are the ends of the Wilson interval of their share."""

    given: int
    right: int
    low: float
    high: float

    @property
    def precision(self) -> float:
        """Return the share of right answers among those given, 0 where none is."""
        return self.right / self.given if self.given else 0.0


def answered(given: int, right: int, confidence: float = 0.95) -> Answered:
    """Return counts of answers with the interval of their precision."""
    return Answered(given, right, *wilson(right, given, confidence))


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two ends of Wilson's score interval of a share (Wilson 1927); 0 and 1 where the count is 0."""
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, square = right / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    low, high = ((share + square / 2 + sign * half) / (1 + square) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def fewest_right(precision: float, confidence: float = 0.95) -> int:
    """Return how many answers without a mistake show a precision: the interval then begins there."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return math.ceil(z * z * precision / (1 - precision))
