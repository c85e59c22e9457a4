"""Metrics of predicted scores."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch

from tunedeck.tasks.correlation import correlations


def score_metrics(
    predicted: torch.Tensor, wanted: torch.Tensor, targets: Sequence[str], levels: Sequence[int] | None
) -> dict[str, float]:
    """Return metrics of scores (examples, targets), both in their unit.

    `mae` and `rmse` are in that unit, `r2` is 1 minus the squared error over that of predicting the mean of `wanted`,
    as in scikit-learn (0 where `wanted` never changes), `spearman` and `pearson` as `correlations`, and for ordinal
    scores `kappa` is the quadratic weighted kappa of the answers rounded to `levels`. Of several targets each is the
    mean, and `mae NAME` is that of one.
    """
    columns = [_metrics(a, b, levels) for a, b in zip(predicted.double().T, wanted.double().T, strict=True)]
    found = {name: fmean(one[name] for one in columns) for name in columns[0]}
    if len(targets) > 1:
        found |= {f"mae {target}": one["mae"] for target, one in zip(targets, columns, strict=True)}
    return found


def _metrics(predicted: torch.Tensor, wanted: torch.Tensor, levels: Sequence[int] | None) -> dict[str, float]:
    error = predicted - wanted
    squared, spread = error.square().mean().item(), (wanted - wanted.mean()).square().mean().item()
    found = {
        "mae": error.abs().mean().item(),
        "rmse": squared**0.5,
        "r2": 1 - squared / spread if spread else 0.0,
        **correlations(predicted.tolist(), wanted.tolist()),
    }
    return found if levels is None else {**found, "kappa": quadratic_kappa(rounded(predicted, levels), wanted)}


def rounded(scores: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
    """Return the nearest level of each score."""
    return scores.round().clamp(*levels)


def quadratic_kappa(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return Cohen's kappa with quadratic weights of two series of ordinal scores; 1 where both are one same value.

    The weights (i - j)² sum to the mean squared difference of the pairs, and by chance to that of all combinations:
    the variances and the squared difference of the means.
    """
    chance = (first.var(correction=0) + second.var(correction=0) + (first.mean() - second.mean()).square()).item()
    return 1 - (first - second).square().mean().item() / chance if chance else 1.0
