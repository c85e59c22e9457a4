"""Begin an adapter's head as the solution on the vectors that it reads of the training texts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.tasks.base import Dataset, Started
from tunedeck.tasks.linear_probe import LinearHead
from tunedeck.tasks.text_head import text_ids
from tunedeck.tasks.vectors import are_kept, distance_to_base, head_inputs, reads_base, start_inputs

MOST_ROWS = 50_000
"""Maximum number of rows that the start of a head is fitted on; a larger data set is sampled randomly."""
NEAR = 0.2
"""The head of a fresh adapter that moves vectors by less is fitted to the base's. Bottlenecks move MiniLM's by 0.05 of
their length and reach what they reach on their vectors; virtual tokens move them by 0.7.
"""

Fit: TypeAlias = Callable[[torch.Tensor, Sequence[Any], bool], LinearHead]
"""Vectors (rows, size), their examples, and whether the head has a bias, to the best head."""
Measure: TypeAlias = Callable[[torch.Tensor, Sequence[Any]], dict[str, float]]
"""Logits (rows, outputs) and their examples to metrics."""


def start_head(
    deck: Deck, name: str, dataset: Dataset[Any], max_length: int, fit: Fit, measure: Measure, *, fresh: bool
) -> Started:
    """Fit an adapter's last layer to what it reads of the training texts, and measure it on the held-out ones.

    Where the adapter moves these vectors far from the base's, a head on the base's is fitted as well, for
    comparison.
    """
    last = last_linear(deck.adapter(name).head)

    def ids_of(examples: Sequence[Any]) -> list[list[int]]:
        return text_ids(deck, [one.text for one in examples], [name] * len(examples), max_length)

    def fitted(of_base: bool) -> LinearHead:
        inputs = head_inputs(deck, name, train_ids, of_base=True) if of_base else start_inputs(deck, name, train_ids)
        return fit(inputs, train, last.bias is not None)

    def measured(head: LinearHead, of_base: bool) -> dict[str, float]:
        if not dataset.evaluation:
            return {}
        vectors = head_inputs(deck, name, ids_of(dataset.evaluation), of_base=of_base)
        return measure(head(vectors), dataset.evaluation)

    train, near = dataset.train, NEAR if fresh else 0.0
    if len(train) > MOST_ROWS:
        train = random.Random(0).sample(train, MOST_ROWS)
    train_ids = ids_of(train)
    distance = distance_to_base(deck, name, train_ids) if reads_base(deck, name) else math.inf
    kept = are_kept(deck, name, train_ids, of_base=distance <= near)
    head = fitted(of_base=distance <= near)
    with torch.no_grad():
        last.weight.copy_(head.weight)
        if last.bias is not None:
            last.bias.copy_(head.bias)
    far = near < distance < math.inf
    head_only = measured(fitted(of_base=True), of_base=True) if far and dataset.evaluation else {}
    return Started(measured(head, of_base=distance == 0), head_only, kept)
