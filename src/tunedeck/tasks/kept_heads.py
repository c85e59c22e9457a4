"""Linear heads kept on disk, so that the adapters of a race or a comparison need not fit the same one again."""

from __future__ import annotations

import hashlib

import torch

from tunedeck.core.bundle import cache_folder
from tunedeck.core.errors import AdapterFileError
from tunedeck.formats.tensors import read_safetensors
from tunedeck.tasks.linear_probe import LinearHead, fit_linear_head
from tunedeck.tasks.vectors import digest_of, keep_tensors

_FORMAT = 1
"""Counts up when `fit_linear_head` finds other solutions."""


def kept_linear_head(
    vectors: torch.Tensor,
    targets: torch.Tensor,
    num_labels: int,
    *,
    multi_label: bool,
    bias: bool = True,
    weights: torch.Tensor | None = None,
) -> LinearHead:
    """Return what `fit_linear_head` does, from disk where it was fitted to the same before."""
    digest = hashlib.sha256(repr((_FORMAT, num_labels, multi_label, bias)).encode())
    digest.update(digest_of([vectors, targets, *([] if weights is None else [weights])]))
    file = cache_folder() / "heads" / f"{digest.hexdigest()}.safetensors"
    try:
        found = read_safetensors(file)
        return LinearHead(found["weight"], found["bias"], found["strength"].item())
    except (AdapterFileError, OSError, KeyError):
        head = fit_linear_head(vectors, targets, num_labels, multi_label=multi_label, bias=bias, weights=weights)
        strength = torch.tensor(head.strength, dtype=torch.float64)
        keep_tensors(file, {"weight": head.weight, "bias": head.bias, "strength": strength})
        return head
