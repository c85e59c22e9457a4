"""The centroids of an adapter's training texts, by which a deck chooses an adapter."""

from __future__ import annotations

import random
from typing import Any

from tunedeck.deck.choice import fit_centroids, sample_size, text_vectors
from tunedeck.deck.deck import Deck
from tunedeck.formats.centroids import Centroids
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.registry import view_of

_KEPT: dict[object, Centroids] = {}
"""The latest centroids, by base and data: all runs of a comparison use the same ones."""


def training_centroids(deck: Deck, name: str, dataset: Dataset[Any]) -> Centroids | None:
    """Return those of a sample of the training texts; None for a task whose examples have no text, and for a base
    without a tokenizer or of an architecture that is not known.
    """
    comparing = view_of(deck.adapter(name).task).comparing
    base, train = deck.base, dataset.train
    if comparing is None or base.tokenizer is None or base.spec is None:
        return None
    key = (base.fingerprint, base.quantize, base.dtype, comparing.text_of, dataset.sha256)
    if key not in _KEPT:
        sample = random.Random(0).sample(range(len(train)), sample_size(len(train)))
        texts = [comparing.text_of(train[row]) for row in sample]
        _KEPT.clear()
        _KEPT[key] = fit_centroids(text_vectors(base, deck.router, texts))
    return _KEPT[key]
