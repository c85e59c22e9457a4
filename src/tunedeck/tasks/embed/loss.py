"""The contrastive loss (InfoNCE, arXiv 1807.03748) for batches in which every text may have several positives."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Relations:
    """Which candidates belong to an anchor and which do not, each (anchors, candidates) of bool.

    What is neither is left out of the loss: the anchor itself, or a copy of a text that is a positive.
    """

    positives: torch.Tensor
    negatives: torch.Tensor

    def to(self, device: torch.device) -> Relations:
        """Return the relations on a device."""
        return Relations(self.positives.to(device), self.negatives.to(device))

    def turned(self) -> Relations:
        """Return the relations with anchors and candidates exchanged, for candidates that have an anchor."""
        owned = self.positives.any(dim=0)
        return Relations(self.positives[:, owned].T, self.negatives[:, owned].T)


def contrastive_loss(scores: torch.Tensor, relations: Relations, *, symmetric: bool = False) -> torch.Tensor:
    """Return mean of -log exp(s_p) / (exp(s_p) + sum over negatives exp(s_n)) over every anchor's positives, then over
    anchors.

    `scores` (anchors, candidates) are similarities divided by the temperature. With one positive for each anchor and
    all other candidates its negatives this is sentence-transformers' MultipleNegativesRankingLoss. One positive never
    competes with another. Anchors without a positive do not count. `symmetric` adds the loss of finding the anchor by
    its positive and halves the sum.
    """
    loss = _one_way(scores, relations)
    if not symmetric:
        return loss
    owned = relations.positives.any(dim=0)
    return (loss + _one_way(scores[:, owned].T, relations.turned())) / 2


def _one_way(scores: torch.Tensor, relations: Relations) -> torch.Tensor:
    against = scores.masked_fill(~relations.negatives, -torch.inf).logsumexp(dim=-1, keepdim=True)
    terms = (torch.logaddexp(scores, against) - scores).masked_fill(~relations.positives, 0.0)
    counts = relations.positives.sum(dim=-1)
    means = terms.sum(dim=-1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


def pair_relations(anchors: list[str], positives: list[str], negatives: list[str]) -> Relations:
    """Return relations of pairs whose candidates are all the positives, then all the negatives.

    Another pair's candidate is not a negative when it is the same text as the pair's positive, belongs to the same
    anchor text, or is the anchor itself.
    """
    candidates = [*positives, *negatives]
    known_positives: dict[str, set[str]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        known_positives.setdefault(anchor, {anchor}).add(positive)
    columns: dict[str, list[int]] = {}
    for column, candidate in enumerate(candidates):
        columns.setdefault(candidate, []).append(column)
    is_negative = torch.ones(len(anchors), len(candidates), dtype=torch.bool)
    for row, anchor in enumerate(anchors):
        is_negative[row, [column for known in known_positives[anchor] for column in columns.get(known, ())]] = False
    own = torch.eye(len(anchors), len(candidates), dtype=torch.bool)
    return Relations(own, is_negative)


def label_relations(texts: list[str], labels: list[str]) -> Relations:
    """Return relations of labelled texts to one another: the same label is a positive, another label a negative.

    A text is neither to itself nor to a copy of it.
    """
    same_label = _equal(labels)
    return Relations(same_label & ~_equal(texts), ~same_label & ~_equal(texts))


def _equal(values: list[str]) -> torch.Tensor:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    ids = torch.tensor([numbers[value] for value in values])
    return ids.unsqueeze(0) == ids.unsqueeze(1)
