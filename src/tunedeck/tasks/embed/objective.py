"""Embedding data encoded for one adapter, and the contrastive loss of any of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch
from torch.nn import functional as F

from tunedeck.data.labelled import Example
from tunedeck.data.pairs import Pair
from tunedeck.deck.deck import Deck
from tunedeck.tasks.embed.encoding import EncodingConfig, token_ids, trained_vectors, vectors_of
from tunedeck.tasks.embed.loss import Relations, contrastive_loss, label_relations, pair_relations
from tunedeck.tasks.text import pad


@dataclass(frozen=True, slots=True)
class Contrast:
    """Texts of one batch as token ids, which of them are anchors and candidates, and how these relate."""

    ids: list[list[int]]
    anchors: slice
    candidates: slice
    relations: Relations


class Batches(Protocol):
    """Training examples, ready to be contrasted."""

    lengths: list[int]
    texts_per_example: float

    def contrast(self, rows: Sequence[int]) -> Contrast:
        """Return the texts of some examples."""
        ...


@final
class PairBatches:
    """Pairs and triplets: every anchor against the positives and negatives of the whole batch."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        queries: Callable[[list[str]], list[list[int]]],
        documents: Callable[[list[str]], list[list[int]]],
    ) -> None:
        self._pairs = pairs
        self._anchors = queries([pair.anchor for pair in pairs])
        self._positives = documents([pair.positive for pair in pairs])
        with_negative = [row for row, pair in enumerate(pairs) if pair.negative is not None]
        encoded = documents([pairs[row].negative or "" for row in with_negative]) if with_negative else []
        self._negatives = dict(zip(with_negative, encoded, strict=True))
        self.lengths = [
            len(self._anchors[row]) + len(self._positives[row]) + len(self._negatives.get(row, ()))
            for row in range(len(pairs))
        ]
        self.texts_per_example = 2 + len(self._negatives) / len(pairs)

    def contrast(self, rows: Sequence[int]) -> Contrast:
        """Return anchors, then their positives in the same order, then the negatives there are."""
        pairs = [self._pairs[row] for row in rows]
        with_negative = [row for row in rows if row in self._negatives]
        ids = [self._anchors[row] for row in rows] + [self._positives[row] for row in rows]
        ids += [self._negatives[row] for row in with_negative]
        relations = pair_relations(
            [pair.anchor for pair in pairs],
            [pair.positive for pair in pairs],
            [self._pairs[row].negative or "" for row in with_negative],
        )
        return Contrast(ids, slice(len(rows)), slice(len(rows), None), relations)


@final
class LabelledBatches:
    """Labelled texts: every text against all others; one alone with its label is joined by another text of that
    label.
    """

    def __init__(self, examples: Sequence[Example], documents: Callable[[list[str]], list[list[int]]]) -> None:
        self._texts = [example.text for example in examples]
        self._labels = [example.labels[0] for example in examples]
        self._ids = documents(self._texts)
        self._rows_of: dict[str, list[int]] = {}
        for row, label in enumerate(self._labels):
            self._rows_of.setdefault(label, []).append(row)
        self.lengths = [len(ids) for ids in self._ids]
        self.texts_per_example = 1.0

    def contrast(self, rows: Sequence[int]) -> Contrast:
        """Return the texts, each an anchor and a candidate."""
        labels = [self._labels[row] for row in rows]
        alone = [row for row, label in zip(rows, labels, strict=True) if labels.count(label) == 1]
        together = [*rows, *(self._partner(row) for row in alone)]
        relations = label_relations([self._texts[row] for row in together], [self._labels[row] for row in together])
        everything = slice(len(together))
        return Contrast([self._ids[row] for row in together], everything, everything, relations)

    def _partner(self, row: int) -> int:
        others = [other for other in self._rows_of[self._labels[row]] if other != row]
        return others[int(torch.randint(len(others), ()))]


@dataclass(frozen=True, slots=True)
class Learning:
    """The loss's settings."""

    temperature: float
    symmetric: bool
    chunk_size: int | None


@final
class EmbedObjective:
    """Contrastive learning on the cosines of a batch."""

    divisible: ClassVar[bool] = False
    remembers = False

    def __init__(
        self,
        deck: Deck,
        name: str,
        batches: Batches,
        encoding: EncodingConfig,
        learning: Learning,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        self._deck, self._name, self._batches = deck, name, batches
        self._encoding, self._learning, self._evaluate = encoding, learning, evaluate
        self.lengths: Sequence[int] = batches.lengths
        self.texts_per_example = batches.texts_per_example

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of examples."""
        return len(rows)

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return mean loss of some training examples against one another, and how many positions were computed."""
        batch = self._batches.contrast(rows)
        vectors, positions = trained_vectors(
            self._deck, self._name, batch.ids, self._encoding, self._learning.chunk_size
        )
        return self._loss(batch, vectors), positions

    @staticmethod
    def losses(parts: Sequence[tuple[EmbedObjective, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """Return the losses of several objectives, each with its rows, from one pass through the base.

        Objectives that work in chunks run one after another.
        """
        if any(objective._learning.chunk_size is not None for objective, _ in parts):
            return [objective.loss(rows) for objective, rows in parts]
        batches = [objective._batches.contrast(rows) for objective, rows in parts]
        counts = [len(batch.ids) for batch in batches]
        owners = [objective for (objective, _), count in zip(parts, counts, strict=True) for _ in range(count)]
        deck = parts[0][0]._deck
        ids, mask = pad(deck, [one for batch in batches for one in batch.ids])
        names, encodings = [owner._name for owner in owners], [owner._encoding for owner in owners]
        vectors = torch.split(vectors_of(deck, ids, mask, names, encodings), counts)
        return [
            (objective._loss(batch, own), len(own) * ids.shape[1])
            for (objective, _), batch, own in zip(parts, batches, vectors, strict=True)
        ]

    def _loss(self, batch: Contrast, vectors: torch.Tensor) -> torch.Tensor:
        vectors = F.normalize(vectors, dim=-1)
        scores = vectors[batch.anchors] @ vectors[batch.candidates].T / self._learning.temperature
        relations = batch.relations.to(scores.device)
        return contrastive_loss(scores, relations, symmetric=self._learning.symmetric)

    def evaluate(self) -> dict[str, float]:
        """Return metrics on the held-out examples."""
        return self._evaluate()


def encoder(deck: Deck, name: str, encoding: EncodingConfig) -> Callable[[list[str]], list[list[int]]]:
    """Return the function from texts to token ids that one adapter uses."""

    def encode(texts: list[str]) -> list[list[int]]:
        return token_ids(deck, texts, [name] * len(texts), [encoding] * len(texts))

    return encode
