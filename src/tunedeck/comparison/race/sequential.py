"""Test on paired differences that may be looked at after every example.

Two candidates answer the same held-out examples; a difference is the rival's score minus the candidate's. Under the
hypothesis that the candidate is not worse, the process below is at most a nonnegative supermartingale that starts at 1,
so it ever reaches 1/α with probability at most α (Ville's inequality), however often it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

MIXTURE = 0.25
"""Variance of the mixing distribution: the test is sharpest after about 60 examples on which the two differ."""
_LARGEST = 600.0


def evidence(differences: Array) -> Array:
    """Return the e-process after each example of (..., examples) differences: evidence that their mean is above 0.

    For a rate λ > 0, exp(λS - λ²V/2), with S the sum of the differences and V that of their squares, is a
    supermartingale where the differences are -1, 0 or 1 and their mean is at most 0, and for large samples otherwise
    (de la Peña, Klass and Lai 2004, doi 10.1214/009117904000000397). Mixed over a half-normal λ of variance MIXTURE,
    this is the normal mixture of Howard et al. 2021 (arXiv 1810.08240, section 3.2); Φ(x) is replaced by its lower
    bound 1 - exp(-x²/2)/2, 0 for x < 0.
    """
    largest = np.abs(differences).max(axis=-1, keepdims=True, initial=0.0)
    scaled = differences / np.where(largest > 0, largest, 1.0)
    total = np.cumsum(scaled, axis=-1)
    spread = 1 + MIXTURE * np.cumsum(scaled * scaled, axis=-1)
    exponent = np.minimum(MIXTURE * total * total / (2 * spread), _LARGEST)
    found: Array = np.where(total > 0, (2 * np.exp(exponent) - 1) / np.sqrt(spread), 0.0)
    return found


def evidence_of_worse(candidate: Array, rivals: Sequence[Array], count: int) -> float:
    """Return the largest evidence, after any number of examples, that the candidate is not the best of `count` others.

    The mean of the rivals' e-processes is one again, also where they depend on each other (Vovk and Wang 2021, arXiv
    1912.06116); rivals that do not compete any longer count as 0, so that it does not matter how they were chosen.
    """
    if not rivals:
        return 0.0
    each = evidence(np.stack(rivals) - candidate)
    return float((each.sum(axis=0) / count).max())


def ahead(rival: Array, candidate: Array) -> bool:
    """Tell whether a rival's mean is more than one standard error of the paired difference above a candidate's.

    A smaller lead is mostly chance, and another reason may decide: the one-standard-error rule of Breiman, Friedman,
    Olshen and Stone 1984 (Classification and Regression Trees, section 3.4.3). It is no test.
    """
    differences = rival - candidate
    return float(differences.mean()) > float(differences.std()) / math.sqrt(len(differences))


def weighted(scores: Sequence[float], weights: Sequence[float]) -> Array:
    """Return scores whose plain mean is their weighted mean."""
    weight = np.asarray(weights, dtype=float)
    found: Array = np.asarray(scores, dtype=float) * weight / weight.mean()
    return found


def told_worse(scores: Mapping[str, Array], count: int, level: float) -> dict[str, tuple[str, float]]:
    """Return the candidates that are significantly worse at this level: by the strongest rival, and the evidence.

    Of `count` candidates in all, the one that is truly best is among them with probability at most `level`.
    """
    found: dict[str, tuple[str, float]] = {}
    for name, own in scores.items():
        rivals = {other: values for other, values in scores.items() if other != name}
        value = evidence_of_worse(own, list(rivals.values()), max(1, count - 1))
        if value >= 1 / level:
            best: Any = max(rivals, key=lambda other: float((rivals[other] - own).mean()))
            found[name] = (best, value)
    return found
