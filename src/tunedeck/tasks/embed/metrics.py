"""Retrieval and similarity metrics from scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

CUTS = (1, 5, 10)


def retrieval_metrics(scores: torch.Tensor, relevant: torch.Tensor) -> dict[str, float]:
    """Return recall@1, @5 and @10, precision at the same, mrr and ndcg@10 of scores (queries, documents), means over
    queries.

    `relevant` (queries, documents) of bool; a query without a relevant document does not count, a score of -inf is no
    document for that query. recall@k is the share of the relevant documents among the first k, precision@k the share of
    the first k that are relevant, mrr the mean of 1 / the first relevant rank, and ndcg@10 sums 1 / log2(1 + rank) over
    the best possible sum (as trec_eval with binary relevance).
    """
    kept = relevant.any(dim=1)
    scores, relevant = scores[kept], relevant[kept]
    order = scores.sort(dim=1, descending=True, stable=True).indices
    hits = relevant.gather(1, order).double()
    total = hits.sum(dim=1)
    found: dict[str, float] = {}
    for cut in CUTS:
        among = hits[:, :cut].sum(dim=1)
        found[f"recall@{cut}"] = (among / total).mean().item()
        found[f"precision@{cut}"] = (among / cut).mean().item()
    found["mrr"] = (1 / (hits.argmax(dim=1) + 1)).double().mean().item()
    discounts = torch.tensor([1 / math.log2(rank + 1) for rank in range(1, 11)], dtype=torch.float64)
    gained = (hits[:, :10] * discounts[: hits.shape[1]]).sum(dim=1)
    best = discounts.cumsum(0)[total.clamp(max=10).long() - 1]
    found["ndcg@10"] = (gained / best).mean().item()
    return found


def mean_of(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return means of several groups of queries as one: (queries that counted, their means)."""
    total = sum(count for count, _ in parts)
    return {name: sum(count * found[name] for count, found in parts) / total for name in parts[0][1]}
