"""Classification metrics from logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def classification_loss(
    logits: torch.Tensor, targets: torch.Tensor, multi_label: bool, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return mean cross-entropy of logits (batch, labels) against ids (batch,), or against 0/1 (batch, labels) when
    multi-label; `weights` (labels,) are those of `label_weights`.
    """
    weights = None if weights is None else weights.to(logits.device)
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weights)
    return F.cross_entropy(logits.float(), targets, weight=weights)


def classification_metrics(
    logits: torch.Tensor, targets: torch.Tensor, multi_label: bool, above: torch.Tensor | float = 0.0
) -> dict[str, float]:
    """Return accuracy, macro_f1, micro_f1 and loss of logits (examples, labels), each 0 to 1 but the loss.

    A multi-label text is predicted to have the labels whose logits are greater than `above`.
    `accuracy` counts a multi-label example only when all its labels are right. A label that neither occurs nor is
    predicted does not enter macro_f1, as in scikit-learn's f1_score over the labels that are present.
    """
    loss = classification_loss(logits, targets, multi_label).item()
    if multi_label:
        predicted, actual = logits > above, targets > 0.5
    else:
        width = logits.shape[1]
        predicted = F.one_hot(logits.argmax(-1), width).bool()
        actual = F.one_hot(targets, width).bool()
    true_positive = (predicted & actual).sum(0).double()
    wrong = (predicted ^ actual).sum(0).double()
    present = (true_positive + wrong) > 0
    f1 = 2 * true_positive[present] / (2 * true_positive[present] + wrong[present])
    total = 2 * true_positive.sum() + wrong.sum()
    return {
        "accuracy": (predicted == actual).all(-1).double().mean().item(),
        "macro_f1": f1.mean().item() if len(f1) else 0.0,
        "micro_f1": (2 * true_positive.sum() / total).item() if total > 0 else 0.0,
        "loss": loss,
    }


def targets_of(names: Sequence[str], labels: Sequence[tuple[str, ...]], multi_label: bool) -> torch.Tensor:
    """Return label ids (examples,), or 0/1 floats (examples, labels) when multi-label."""
    position = {label: index for index, label in enumerate(names)}
    if not multi_label:
        return torch.tensor([position[own[0]] for own in labels])
    targets = torch.zeros(len(labels), len(names))
    for row, own in enumerate(labels):
        targets[row, [position[label] for label in own]] = 1.0
    return targets
