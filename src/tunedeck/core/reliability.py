"""How far probabilities can be trusted: how often answers are right, by the probability they were given with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
