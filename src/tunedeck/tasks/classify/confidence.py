"""Probabilities of labels that mean what they say: one temperature, fitted on held-out texts, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from tunedeck.core.reliability import Reliability, TemperatureScaling, binned
from tunedeck.deck.deck import Deck
from tunedeck.formats.confidence import Confidence
from tunedeck.tasks.classify.metrics import classification_metrics


def confidence_of(deck: Deck, name: str | None) -> Confidence:
    """Return what is known of the probabilities of an adapter, None for the base model."""
    found = None if name is None else deck.adapter(name).manifest.confidence
    return found or Confidence()


def logits_above(known: Confidence, labels: Sequence[str]) -> torch.Tensor | float:
    """Return the logits (labels,) above which a multi-label adapter answers each label; 0 without thresholds."""
    if known.thresholds is None:
        return 0.0
    limits = [known.thresholds.get(label) for label in labels]
    chances = torch.tensor([1.0 if limit is None else limit for limit in limits], dtype=torch.double)
    return known.temperature * chances.logit()


def held_out_metrics(logits: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> dict[str, float]:
    """Return the metrics of logits, as they are, and the temperature that would suit them best."""
    metrics = classification_metrics(logits, targets, multi_label)
    return {**metrics, "temperature": fit_temperature(logits, targets, multi_label)}


def fit_temperature(logits: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> float:
    """Return the temperature with the lowest loss of logits (examples, labels) / temperature, by L-BFGS.

    Its logarithm is penalised as much as a single example counts, so that it stays finite where all answers are right.
    1 for logits that are not finite.
    """
    if not torch.isfinite(logits).all():
        return 1.0
    wide = logits.double()
    log_temperature = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _loss(wide / log_temperature.exp(), targets, multi_label)
        value = loss + log_temperature.square() / (2 * len(wide))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp())


def _loss(logits: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> torch.Tensor:
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
    return F.cross_entropy(logits, targets)


def probabilities(logits: torch.Tensor, multi_label: bool, temperature: float = 1.0) -> torch.Tensor:
    """Return the probability of every label, float64 (..., labels)."""
    scaled = logits.double() / temperature
    return scaled.sigmoid() if multi_label else scaled.softmax(-1)


def reliability(chances: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> Reliability:
    """Measure probabilities (examples, labels) against targets as `targets_of` gives them."""
    if multi_label:
        error, bins = binned(chances.flatten().tolist(), (targets.flatten() > 0.5).tolist())
        return Reliability(error, (chances - targets).square().mean().item(), bins)
    best = chances.max(-1)
    error, bins = binned(best.values.tolist(), (best.indices == targets).tolist())
    truth = F.one_hot(targets, chances.shape[-1])
    return Reliability(error, (chances - truth).square().sum(-1).mean().item(), bins)


def temperature_scaling(
    logits: torch.Tensor, targets: torch.Tensor, multi_label: bool, temperature: float
) -> TemperatureScaling:
    """Measure probabilities of logits (examples, labels) without a temperature and with it."""
    before, after = (
        reliability(probabilities(logits, multi_label, one), targets, multi_label) for one in (1.0, temperature)
    )
    return TemperatureScaling(temperature, before, after)
