"""The head that a run of classification begins with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import torch

from tunedeck.data.labelled import Example
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.metrics import classification_metrics, targets_of
from tunedeck.tasks.classify.task import Classify, classify_ids
from tunedeck.tasks.linear_probe import fit_linear_head
from tunedeck.tasks.vectors import head_inputs

MOST_ROWS = 50_000
"""Maximum number of rows that the start of a head is fitted on; a larger data set is sampled randomly."""
NEAR = 0.2
"""The head of a fresh adapter that moves vectors by less is fitted to the base's. Bottlenecks move MiniLM's by 0.05 of
their length and reach what they reach on their own vectors; virtual tokens move them by 0.7.
"""


def start_head(deck: Deck, name: str, dataset: Dataset[Example]) -> dict[str, float]:
    """Fit an adapter's last layer to what it reads of the training texts; return the metrics on the held-out ones,
    none where nothing is held out.
    """
    adapter = deck.adapter(name)
    task, labels = cast(Classify, adapter.task), deck.label_names(name)

    def vectors_and_targets(examples: Sequence[Example], tolerance: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        ids = classify_ids(deck, [one.text for one in examples], [name] * len(examples), task.max_length)
        targets = targets_of(labels, [one.labels for one in examples], task.multi_label)
        return head_inputs(deck, name, ids, tolerance), targets

    train = dataset.train
    if len(train) > MOST_ROWS:
        train = random.Random(0).sample(train, MOST_ROWS)
    last = last_linear(adapter.head)
    vectors, targets = vectors_and_targets(train, NEAR)
    head = fit_linear_head(vectors, targets, len(labels), multi_label=task.multi_label, bias=last.bias is not None)
    with torch.no_grad():
        last.weight.copy_(head.weight)
        if last.bias is not None:
            last.bias.copy_(head.bias)
    if not dataset.evaluation:
        return {}
    vectors, targets = vectors_and_targets(dataset.evaluation)
    return classification_metrics(head(vectors), targets, task.multi_label)
