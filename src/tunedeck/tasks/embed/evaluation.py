"""How well vectors find what belongs together, or agree with people's scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.nn import functional as F

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example
from tunedeck.data.pairs import Pair, ScoredPair
from tunedeck.tasks.correlation import correlations
from tunedeck.tasks.embed.loss import Relations, contrastive_loss
from tunedeck.tasks.embed.metrics import CUTS, mean_of, retrieval_metrics

Vectors: TypeAlias = Callable[[Sequence[str], bool], torch.Tensor]
"""Texts to vectors (texts, hidden); the flag says whether they are queries."""
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Search:
    """Queries, documents, and for each query the numbers of those that are relevant and of those that do not count."""

    queries: list[str]
    documents: list[str]
    relevant: list[list[int]]
    ignored: list[list[int]]


def evaluate_vectors(vectors: Vectors, examples: Sequence[Any], temperature: float) -> dict[str, float]:
    """Return metrics of one form of examples.

    Pairs: recall@1, @5, @10, mrr, ndcg@10 and loss of every anchor among all positives and negatives. Labelled texts:
    precision@1, @5, @10, mrr, ndcg@10 and loss of every text among all others, those of its label being relevant.
    Scored pairs: spearman and pearson correlation of the cosines with the scores.
    """
    if isinstance(examples[0], ScoredPair):
        left = vectors([one.first for one in examples], False)
        right = vectors([one.second for one in examples], False)
        return correlations(F.cosine_similarity(left, right).tolist(), [one.score for one in examples])
    labelled = isinstance(examples[0], Example)
    search = _among_labels(list(examples)) if labelled else _among_pairs(list(examples))
    found = _search(vectors, search, temperature, as_queries=not labelled)
    share = "precision" if labelled else "recall"
    return {name: found[name] for name in (*(f"{share}@{cut}" for cut in CUTS), "mrr", "ndcg@10", "loss")}


def _search(vectors: Vectors, search: Search, temperature: float, *, as_queries: bool) -> dict[str, float]:
    queries = F.normalize(vectors(search.queries, as_queries), dim=-1)
    documents = F.normalize(vectors(search.documents, False), dim=-1)
    parts = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        rows = range(start, min(start + _QUERIES_AT_ONCE, len(queries)))
        scores = queries[rows.start : rows.stop] @ documents.T
        relevant, ignored = (_flags(of, rows, len(documents)) for of in (search.relevant, search.ignored))
        relevant &= ~ignored
        counted = int(relevant.any(dim=1).sum())
        if counted:
            loss = contrastive_loss(scores / temperature, Relations(relevant, ~relevant & ~ignored)).item()
            parts.append(
                (counted, {**retrieval_metrics(scores.masked_fill(ignored, -torch.inf), relevant), "loss": loss})
            )
    if not parts:
        raise DataError(say("no held-out text has another that belongs to it; hold out more"))
    return mean_of(parts)


def _among_pairs(pairs: list[Pair]) -> Search:
    """Return every anchor once, every positive and negative once; a text is not looked for among copies of itself."""
    texts = [*(pair.positive for pair in pairs), *(pair.negative for pair in pairs if pair.negative is not None)]
    number = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    relevant: dict[str, list[int]] = {}
    for pair in pairs:
        relevant.setdefault(pair.anchor, []).append(number[pair.positive])
    ignored = [[number[anchor]] if anchor in number else [] for anchor in relevant]
    return Search(list(relevant), list(number), list(relevant.values()), ignored)


def _among_labels(examples: list[Example]) -> Search:
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, example in enumerate(examples):
        rows_of.setdefault(example.labels, []).append(row)
    texts = [example.text for example in examples]
    return Search(texts, texts, [rows_of[example.labels] for example in examples], [[row] for row in range(len(texts))])


def _flags(numbers: list[list[int]], rows: range, width: int) -> torch.Tensor:
    flags = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        flags[index, numbers[row]] = True
    return flags
