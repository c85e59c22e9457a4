"""Combine LoRA layers of several adapters into one: sums, sums of low rank, TIES (arXiv 2306.01708), DARE (2311.03099).

`cat` and `svd` add up the updates of the weights; the others combine A with A and B with B, as PEFT's
add_weighted_adapter does under the same names, which is an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch

Combination: TypeAlias = Literal["cat", "svd", "linear", "ties", "dare_linear", "dare_ties"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)
PRUNED: tuple[Combination, ...] = ("ties", "dare_linear", "dare_ties")
"""Combinations that keep a share of each tensor, the density."""


class Factors(NamedTuple):
    """A (r, in) and B (out, r) of a layer, and the weight of its update scaling · B A in the sum."""

    a: torch.Tensor
    b: torch.Tensor
    weight: float


def needs_equal_ranks(how: Combination) -> bool:
    """Tell whether a combination adds A to A and B to B."""
    return how not in ("cat", "svd")


def combined_rank(how: Combination, ranks: Sequence[int]) -> int:
    """Return the rank of a combination: `cat` adds the ranks up, the others take the largest."""
    return sum(ranks) if how == "cat" else max(ranks)


def combine(layers: Sequence[Factors], how: Combination, rank: int, density: float, draw: torch.Generator) -> Factors:
    """Return A (rank, in) and B (out, rank) of the combination, to be used with a scaling of 1; float32.

    A rank above what the layers need is filled with zeros.
    """
    layers = [Factors(one.a.float(), one.b.float(), one.weight) for one in layers]
    if how == "cat":
        a, b = torch.cat([one.weight * one.a for one in layers]), torch.cat([one.b for one in layers], dim=1)
    elif how == "svd":
        a, b = _truncated(sum((one.weight * (one.b @ one.a) for one in layers), torch.zeros(())), rank)
    else:
        sizes = [math.sqrt(abs(one.weight)) for one in layers]
        signed = [math.copysign(size, one.weight) for size, one in zip(sizes, layers, strict=True)]
        a = _mixed([one.a for one in layers], signed, how, density, draw)
        b = _mixed([one.b for one in layers], sizes, how, density, draw)
    missing = rank - len(a)
    return Factors(torch.nn.functional.pad(a, (0, 0, 0, missing)), torch.nn.functional.pad(b, (0, missing)), 1.0)


def _truncated(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of the nearest matrix of that rank, the singular values shared between them."""
    u, values, v = torch.linalg.svd(update, full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def _mixed(
    tensors: Sequence[torch.Tensor], weights: Sequence[float], how: Combination, density: float, draw: torch.Generator
) -> torch.Tensor:
    """Return the weighted sum of what is kept of each tensor; with TIES the mean of the values of the elected sign."""
    if how == "ties":
        kept = [_largest(tensor, density) for tensor in tensors]
    elif how in PRUNED:
        kept = [tensor * (torch.rand(tensor.shape, generator=draw) < density) / density for tensor in tensors]
    else:
        kept = list(tensors)
    stacked = torch.stack(kept)
    weighted = stacked * torch.tensor(weights)[:, None, None]
    if how not in ("ties", "dare_ties"):
        return weighted.sum(0)
    elected = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agrees = stacked.sign() == elected
    return (weighted * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def _largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """Return the tensor with all but its largest values, by their size, set to zero."""
    places = tensor.abs().flatten().topk(int(density * tensor.numel())).indices
    kept = torch.zeros_like(tensor).flatten()
    kept[places] = tensor.flatten()[places]
    return kept.view_as(tensor)
