"""The head that a run of classification begins with."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import cast

import torch

from tunedeck.data.labelled import Example
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.tasks.base import Dataset, Started
from tunedeck.tasks.classify.metrics import classification_metrics, targets_of
from tunedeck.tasks.classify.task import Classify, classify_ids
from tunedeck.tasks.classify.weights import label_weights
from tunedeck.tasks.linear_probe import LinearHead, fit_linear_head
from tunedeck.tasks.vectors import distance_to_base, head_inputs, reads_base

MOST_ROWS = 50_000
"""Maximum number of rows that the start of a head is fitted on; a larger data set is sampled randomly."""
NEAR = 0.2
"""The head of a fresh adapter that moves vectors by less is fitted to the base's. Bottlenecks move MiniLM's by 0.05 of
their length and reach what they reach on their own vectors; virtual tokens move them by 0.7.
"""


def start_head(deck: Deck, name: str, dataset: Dataset[Example]) -> Started:
    """Fit an adapter's last layer to what it reads of the training texts.

    Where a fresh adapter moves these vectors far from the base's, a head on the base's is fitted as well, for
    comparison.
    """
    adapter = deck.adapter(name)
    task, labels = cast(Classify, adapter.task), deck.label_names(name)
    last = last_linear(adapter.head)

    def ids_of(examples: Sequence[Example]) -> list[list[int]]:
        return classify_ids(deck, [one.text for one in examples], [name] * len(examples), task.max_length)

    def targets(examples: Sequence[Example]) -> torch.Tensor:
        return targets_of(labels, [one.labels for one in examples], task.multi_label)

    def fitted(of_base: bool) -> LinearHead:
        vectors = head_inputs(deck, name, train_ids, of_base=of_base)
        wanted = targets(train)
        weights = label_weights(task.class_weights, labels, wanted, task.multi_label)
        bias = last.bias is not None
        return fit_linear_head(vectors, wanted, len(labels), multi_label=task.multi_label, bias=bias, weights=weights)

    def measured(head: LinearHead, of_base: bool) -> dict[str, float]:
        if not dataset.evaluation:
            return {}
        logits = head(head_inputs(deck, name, ids_of(dataset.evaluation), of_base=of_base))
        return classification_metrics(logits, targets(dataset.evaluation), task.multi_label)

    train = dataset.train
    if len(train) > MOST_ROWS:
        train = random.Random(0).sample(train, MOST_ROWS)
    train_ids = ids_of(train)
    distance = distance_to_base(deck, name, train_ids) if reads_base(deck, name) else math.inf
    head = fitted(of_base=distance <= NEAR)
    with torch.no_grad():
        last.weight.copy_(head.weight)
        if last.bias is not None:
            last.bias.copy_(head.bias)
    far = NEAR < distance < math.inf
    head_only = measured(fitted(of_base=True), of_base=True) if far and dataset.evaluation else {}
    return Started(measured(head, of_base=distance == 0), head_only)
