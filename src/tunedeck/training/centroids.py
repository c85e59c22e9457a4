"""The centroids of an adapter's training texts, by which a deck chooses an adapter."""

from __future__ import annotations

import random
from typing import Any

from tunedeck.deck.choice import fit_centroids, sample_size, text_vectors
from tunedeck.deck.deck import Deck
from tunedeck.formats.centroids import Centroids
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.registry import view_of


def training_centroids(deck: Deck, name: str, dataset: Dataset[Any]) -> Centroids | None:
    """Return those of a sample of the training texts; None for a task whose examples have no text, and for a base
    without a tokenizer.
    """
    comparing = view_of(deck.adapter(name).task).comparing
    if comparing is None or deck.tokenizer is None:
        return None
    sample = random.Random(0).sample(range(len(dataset.train)), sample_size(len(dataset.train)))
    texts = [comparing.text_of(dataset.train[row]) for row in sample]
    return fit_centroids(text_vectors(deck.base, deck.router, texts))
