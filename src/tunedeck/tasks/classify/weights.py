"""Weights of labels in the loss, so that rare labels count as much as frequent ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.tasks.classify.config import ClassWeights


def label_weights(
    setting: ClassWeights, labels: Sequence[str], targets: torch.Tensor, multi_label: bool
) -> torch.Tensor | None:
    """Return a weight for each label, float32 (labels,), or None where all count alike.

    "balanced" weighs a label inversely to its number of examples, with a mean of 1 over the examples, as scikit-learn
    does; a multi-label one by the number of examples without it for each example with it. A mapping gives the weights
    themselves, 1 for a label that it does not name; ConfigError for one that the data does not have.
    """
    if setting is None:
        return None
    if setting != "balanced":
        unknown = [label for label in setting if label not in labels]
        if unknown:
            raise ConfigError(
                say("class_weights: no label {label!r}; known: {known}", label=unknown[0], known=listing(labels))
            )
        return torch.tensor([float(setting.get(label, 1.0)) for label in labels])
    if multi_label:
        having = targets.sum(0).clamp(min=1)
        return (len(targets) - having).clamp(min=1) / having
    counts = torch.bincount(targets, minlength=len(labels)).clamp(min=1)
    return len(targets) / (len(labels) * counts.float())
