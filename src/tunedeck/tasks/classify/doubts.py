"""Which labels look wrong, and what more data would bring, by heads on a frozen base's vectors.

Each row is judged by a head that has not seen it, and ranked by the probability of the label it has: confident
learning's self-confidence (Northcutt et al., arXiv 1911.00068). Of the rankings compared in bench/label_errors.py none
finds more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.methods.registry import config_of
from tunedeck.tasks.linear_probe import fit_linear_head
from tunedeck.tasks.text_head import text_ids
from tunedeck.tasks.vectors import head_inputs

FOLDS = 5
SHARES = (0.1, 0.2, 0.5, 1.0)
"""Shares of the training rows at which the learning curve is measured."""
_PROBE = "(labels)"


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy of the head on rows left out, trained on that many rows; the interval holds 95 %."""

    rows: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Doubts:
    """Out-of-fold probabilities (rows, labels) and the learning curve of the same heads."""

    probabilities: torch.Tensor
    targets: torch.Tensor
    curve: tuple[Point, ...]

    def ranked(self) -> list[int]:
        """Return the rows whose label is likeliest wrong first."""
        return self.probabilities.gather(1, self.targets[:, None])[:, 0].argsort(stable=True).tolist()

    def suggested(self, row: int) -> int:
        """Return the likeliest label of a row."""
        return int(self.probabilities[row].argmax())


def base_vectors(deck: Deck, texts: Sequence[str], labels: Sequence[str], max_length: int) -> torch.Tensor:
    """Return what a head would read of texts (rows, size); kept on disk for the next time."""
    deck.add(_PROBE, config_of("full", {"layers": "head"}), labels=tuple(labels))
    try:
        return head_inputs(deck, _PROBE, text_ids(deck, texts, [_PROBE] * len(texts), max_length), of_base=True)
    finally:
        deck.remove(_PROBE)


def doubts(vectors: torch.Tensor, targets: torch.Tensor, num_labels: int) -> Doubts:
    """Judge rows by heads trained on the other folds, and on parts of them for the learning curve.

    Vectors (rows, size), targets (rows,). Folds share out each label. The strength of the penalty is that of all rows.
    """
    strength = fit_linear_head(vectors, targets, num_labels, multi_label=False).strength
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    order = order[targets[order].argsort(stable=True)]
    folds = torch.empty_like(order)
    folds[order] = torch.arange(len(order)) % FOLDS
    probabilities = torch.zeros(len(targets), num_labels)
    right: dict[float, list[float]] = {share: [] for share in SHARES}
    sizes: dict[float, int] = {}
    for fold in range(FOLDS):
        rest, test = order[folds[order] != fold], folds == fold
        for share in SHARES:
            part = rest[torch.arange(len(rest)) % round(1 / share) == 0]
            head = fit_linear_head(vectors[part], targets[part], num_labels, multi_label=False, strength=strength)
            found = head(vectors[test]).softmax(-1)
            right[share].append((found.argmax(-1) == targets[test]).double().mean().item())
            sizes[share] = len(part)
        probabilities[test] = found
    points = (_point(sizes[share], right[share], len(targets)) for share in SHARES)
    return Doubts(probabilities, targets, tuple(points))


def outlook(curve: Sequence[Point]) -> str:
    """Say in a sentence what twice the data would bring: what the last doubling has brought."""
    half, whole = curve[-2], curve[-1]
    gain = (whole.accuracy - half.accuracy) / math.log2(whole.rows / half.rows)
    noise = math.hypot(whole.high - whole.accuracy, half.high - half.accuracy)
    if gain <= noise / 4:
        return say("twice the data would hardly bring anything: the last doubling brought {gain:+.1%}", gain=gain)
    return say(
        "twice the data would bring about {points:.1f} points of accuracy, as the last doubling did", points=100 * gain
    )


def _point(rows: int, accuracies: Sequence[float], judged: int) -> Point:
    mean = statistics.fmean(accuracies)
    between = statistics.variance(accuracies) / len(accuracies)
    half = 1.96 * math.sqrt(max(between, mean * (1 - mean) / judged))
    return Point(rows, mean, max(0.0, mean - half), min(1.0, mean + half))
