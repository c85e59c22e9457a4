"""Texts that are far from all training texts: the relative Mahalanobis distance of what the head reads of them.

Of a head only that is the base's vector. The distance is fitted on groups of the training texts' vectors: their labels,
each divided by k-means where there are few. Its limit is a quantile over held-out texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy
import torch
from torch import nn

from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.formats.confidence import Novelty, encoded

GROUPS, FEWEST = 32, 8
"""Groups that all labels together are divided into, and texts of a group at least, on average."""
ROUNDS = 10
RIDGE = 0.01
"""Added to the variances of a label's texts, as a share of their mean."""


def fit_novelty(vectors: torch.Tensor, targets: torch.Tensor, held_out: torch.Tensor, keep: float) -> Novelty:
    """Fit the distance to vectors (texts, size) by label (texts,), and its limit so that a share `keep` of the held-out
    vectors lies within.

    Both covariances are diagonal in the axes of the generalised eigenvalue problem between them (linear discriminant
    analysis); all but groups - 1 of them cancel.
    """
    x, groups = vectors.double(), _groups(vectors.double(), targets)
    counts = torch.bincount(groups)
    means = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add_(0, groups, x) / counts[:, None]
    centre, within = x.mean(0), x - means[groups]
    inside = within.T @ within / len(x)
    inside += RIDGE * inside.diagonal().mean().clamp(min=1e-12) * torch.eye(len(inside), dtype=x.dtype)
    root = torch.linalg.cholesky(inside)
    between = torch.linalg.solve_triangular(root, (means - centre).T * (counts / len(x)).sqrt(), upper=False)
    basis, singular, _ = torch.linalg.svd(between, full_matrices=False)
    axes = max(1, min(len(counts) - 1, len(inside)))
    projection = torch.linalg.solve_triangular(root.T, basis[:, :axes], upper=True)
    arrays = {
        "centre": centre.numpy(),
        "projection": projection.numpy(),
        "means": ((means - centre) @ projection).numpy(),
        "spread": singular[:axes].square().numpy(),
    }
    fitted = Novelty(size=x.shape[1], axes=axes, groups=len(counts), values=encoded(arrays), farthest=0.0)
    distances = distances_to_training(fitted, held_out)
    return fitted.model_copy(update={"farthest": float(numpy.quantile(distances.numpy(), keep))})


def _groups(x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the group of each vector, numbered without gaps: k-means within each label, from a fixed seed."""
    labels = sorted(set(targets.tolist()))
    found = torch.zeros_like(targets)
    for label in labels:
        rows = (targets == label).nonzero()[:, 0]
        count = max(1, min(round(GROUPS / len(labels)), len(rows) // FEWEST))
        found[rows] = label * GROUPS + _nearest(x[rows], count)
    return torch.from_numpy(numpy.unique(found.numpy(), return_inverse=True)[1])


def _nearest(x: torch.Tensor, count: int) -> torch.Tensor:
    """Return which of `count` means is nearest to each row, after ROUNDS of Lloyd's algorithm."""
    means = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(x, means).argmin(1)
        for one in set(nearest.tolist()):
            means[one] = x[nearest == one].mean(0)
    return torch.cdist(x, means).argmin(1)


def distances_to_training(novelty: Novelty, vectors: torch.Tensor) -> torch.Tensor:
    """Return the distance of each vector (texts, size), float64 (texts,)."""
    told = {name: torch.from_numpy(array).double() for name, array in novelty.arrays().items()}
    z = (vectors.double() - told["centre"]) @ told["projection"]
    nearest = torch.cdist(z, told["means"]).square().amin(-1)
    return nearest - (z.square() / (1 + told["spread"])).sum(-1)


@contextmanager
def vectors_read(deck: Deck, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Note what the heads of adapters read of their rows in the next batch, (rows, size) in the order of the rows."""
    found: dict[str, torch.Tensor] = {}

    def note(name: str) -> None:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            found[name] = args[0]  # of a batch that is answered between this one's layers, the own one comes last

        stack.callback(last_linear(deck.adapter(name).head).register_forward_pre_hook(hook).remove)

    with ExitStack() as stack:
        for name in names:
            note(name)
        yield found


def far_rows(deck: Deck, adapters: Sequence[str | None], read: dict[str, torch.Tensor]) -> list[bool]:
    """Tell of each row of a batch whether its text is far from all training texts of its adapter."""
    far = [False] * len(adapters)
    for name, vectors in read.items():
        known = deck.adapter(name).manifest.confidence
        assert known is not None
        assert known.novelty is not None
        rows = [row for row, adapter in enumerate(adapters) if adapter == name]
        distances = distances_to_training(known.novelty, vectors.float().cpu())
        for row, distance in zip(rows, distances.tolist(), strict=True):
            far[row] = distance > known.novelty.farthest
    return far
