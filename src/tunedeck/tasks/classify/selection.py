"""Which texts to label next: unsure ones, apart from each other in a frozen base's vectors.

Of the unlabelled texts that a classifier is least sure of, `CANDIDATES` times as many as are asked for, k-means makes
groups weighted by how unsure it is, and each group gives the text nearest to its mean (Zhdanov, arXiv 1901.05954).
Without a classifier the groups are of all texts, which gives typical ones; bench/label_next.py compares the ways.
"""

from __future__ import annotations

import torch

CANDIDATES = 10
_ROUNDS = 10


def margins(probabilities: torch.Tensor, *, multi_label: bool) -> torch.Tensor:
    """Return how sure a classifier is of each row of probabilities (rows, labels): 0 where two answers tie, up to 1.

    That is the likeliest label's lead over the second; of several labels per text, the lead of the answer that is
    nearest to even.
    """
    if multi_label:
        return (2 * probabilities - 1).abs().amin(-1)
    first, second = probabilities.topk(2, dim=-1).values.unbind(-1)
    return first - second


def choose_rows(vectors: torch.Tensor, count: int, sure: torch.Tensor | None = None, seed: int = 0) -> list[int]:
    """Return `count` different rows of vectors (rows, size), in the order of `sure` (rows,) where it is given."""
    rows = torch.arange(len(vectors))
    if count >= len(rows):
        chosen = rows
    else:
        weights = torch.ones(len(rows))
        if sure is not None:
            rows = sure.argsort(stable=True)[: CANDIDATES * count]
            weights = 1 - sure[rows].float().clamp(0, 1) + 1e-3
        chosen = rows[_nearest_to_means(vectors[rows].float(), weights, count, seed)]
    order = chosen if sure is None else chosen[sure[chosen].argsort(stable=True)]
    found: list[int] = order.tolist()
    return found


def _nearest_to_means(x: torch.Tensor, weights: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return `count` different rows, each the nearest to the mean of a group by weighted k-means."""
    means = x[_spread_out(x, weights, count, seed)].clone()
    for _ in range(_ROUNDS):
        group = torch.cdist(x, means).argmin(1)
        sums = torch.zeros_like(means).index_add_(0, group, x * weights[:, None])
        totals = torch.zeros(count).index_add_(0, group, weights)
        filled = totals > 0
        means[filled] = sums[filled] / totals[filled, None]
    chosen: list[int] = []
    for distances in torch.cdist(means, x):
        distances[chosen] = torch.inf
        chosen.append(int(distances.argmin()))
    return torch.tensor(chosen)


def _spread_out(x: torch.Tensor, weights: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return rows to start from by k-means++: each drawn by its weight times its squared distance to those before."""
    source = torch.Generator().manual_seed(seed)
    chosen = [int(torch.multinomial(weights, 1, generator=source))]
    nearest = torch.full((len(x),), torch.inf)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
        chances = nearest * weights
        chances[chosen] = 0.0
        if not chances.sum() > 0:  # only repeats are left
            chances = weights.clone()
            chances[chosen] = 0.0
        chosen.append(int(torch.multinomial(chances, 1, generator=source)))
    return torch.tensor(chosen)
