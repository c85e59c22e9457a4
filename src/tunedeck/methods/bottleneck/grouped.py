"""The bottleneck formula for a batch whose rows use different adapters, without gradients: two batched products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from tunedeck.methods.sites import Work

if TYPE_CHECKING:
    from tunedeck.methods.bottleneck.layer import BottleneckLayer

Stacked = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def is_alike(work: Work) -> bool:
    """Whether `own_products` can stand for the layers: all of one activation and none in training, in a mixed batch."""
    known = [layer for layer in _layers(work) if layer is not None]
    mixed, alike = len(work.parts) > 1, len({id(layer.activation) for layer in known}) == 1
    return mixed and alike and not torch.is_grad_enabled() and not any(layer.training for layer in known)


def own_products(z: torch.Tensor, work: Work) -> torch.Tensor:
    """s·A(z) of the touched rows, (rows, ..., hidden), each row by its own adapter; zeros for the base."""
    down, down_bias, up, up_bias = work.kept(z.dtype, partial(_stacked, work, z.dtype))
    activation = next(layer.activation for layer in _layers(work) if layer is not None)
    inner = torch.baddbmm(down_bias, z.reshape(len(z), -1, z.shape[-1]), down)
    return torch.baddbmm(up_bias, activation(inner), up).view_as(z)


def _stacked(work: Work, dtype: torch.dtype) -> Stacked:
    """Wᵀ_down (rows, hidden, d), b_down (rows, 1, d), s·Wᵀ_up (rows, d, hidden), s·b_up (rows, 1, hidden), zeros up to the largest d."""
    layers = _layers(work)
    width = max(layer.down.out_features for layer in layers if layer is not None)
    nothing = next(layer for layer in layers if layer is not None)
    rows = [_filled(layer or nothing, width, 1.0 if layer else 0.0) for layer in layers]
    down, down_bias, up, up_bias = (work.spread(torch.stack(side).to(dtype)) for side in zip(*rows, strict=True))
    return down.transpose(1, 2), down_bias[:, None], up.transpose(1, 2), up_bias[:, None]


def _filled(layer: BottleneckLayer, width: int, times: float) -> Stacked:
    missing = width - layer.down.out_features
    scaling = times * (layer.fixed_scaling if layer.scaling is None else layer.scaling)
    column = scaling[:, None] if isinstance(scaling, torch.Tensor) else scaling
    return (
        F.pad(layer.down.weight, (0, 0, 0, missing)),
        F.pad(layer.down.bias, (0, missing)),
        F.pad(column * layer.up.weight, (0, missing)),
        scaling * layer.up.bias,
    )


def _layers(work: Work) -> Sequence[BottleneckLayer | None]:
    return cast("Sequence[BottleneckLayer | None]", work.layers)
