"""The head that a run of classification begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from tunedeck.data.labelled import Example
from tunedeck.deck.deck import Deck
from tunedeck.tasks import head_start
from tunedeck.tasks.base import Dataset, Started
from tunedeck.tasks.classify.confidence import held_out_metrics
from tunedeck.tasks.classify.metrics import targets_of
from tunedeck.tasks.classify.task import Classify
from tunedeck.tasks.classify.weights import label_weights
from tunedeck.tasks.kept_heads import kept_linear_head
from tunedeck.tasks.linear_probe import LinearHead


def start_head(deck: Deck, name: str, dataset: Dataset[Example], *, fresh: bool = True) -> Started:
    """Fit an adapter's last layer to what it reads of the training texts."""
    task, labels = cast(Classify, deck.adapter(name).task), deck.label_names(name)

    def targets(examples: Sequence[Example]) -> torch.Tensor:
        return targets_of(labels, [one.labels for one in examples], task.multi_label)

    def fit(vectors: torch.Tensor, examples: Sequence[Example], bias: bool) -> LinearHead:
        wanted = targets(examples)
        weights = label_weights(task.class_weights, labels, wanted, task.multi_label)
        return kept_linear_head(vectors, wanted, len(labels), multi_label=task.multi_label, bias=bias, weights=weights)

    def measure(logits: torch.Tensor, examples: Sequence[Example]) -> dict[str, float]:
        return held_out_metrics(logits, targets(examples), task.multi_label)

    return head_start.start_head(deck, name, dataset, task.max_length, fit, measure, fresh=fresh)
