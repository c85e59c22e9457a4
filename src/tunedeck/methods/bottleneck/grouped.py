"""The bottleneck formula for a batch whose rows use different adapters, without gradients: two batched products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from tunedeck.methods.sites import Work, dtype_of_products

if TYPE_CHECKING:
    from tunedeck.methods.bottleneck.layer import BottleneckLayer

Stacked = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def is_alike(work: Work) -> bool:
    """Whether `own_products` can stand for the layers: all of one activation and none in training, in a mixed batch."""
    known = [layer for layer in _layers(work) if layer is not None]
    mixed, alike = len(work.parts) > 1, len({id(layer.activation) for layer in known}) == 1
    return mixed and alike and not torch.is_grad_enabled() and not any(layer.training for layer in known)


def own_products(z: torch.Tensor, work: Work, h: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """h + s·A(z) of the touched rows, (rows, positions, hidden), each row by its own adapter, h alone for the base."""
    dtype = dtype_of_products(h)
    down, down_bias, up, up_bias = work.kept(dtype, partial(_stacked, work, dtype))
    activation = next(layer.activation for layer in _layers(work) if layer is not None)
    inner = torch.baddbmm(down_bias, z.reshape(h.shape).to(dtype), down)
    return torch.add(h, torch.baddbmm(up_bias, activation(inner), up).to(h.dtype), out=out)


def _stacked(work: Work, dtype: torch.dtype) -> Stacked:
    """Wᵀ_down (rows, hidden, d), b_down (rows, 1, d), s·Wᵀ_up (rows, d, hidden), s·b_up (rows, 1, hidden), zeros up to the largest d."""

    def of(read: Callable[[BottleneckLayer], torch.Tensor]) -> torch.Tensor:
        return work.stacked(lambda layer: read(cast("BottleneckLayer", layer)))

    def learned(layer: BottleneckLayer) -> torch.Tensor:
        return up_bias.new_ones(()) if layer.scaling is None else layer.scaling

    def fixed(layer: nn.Module) -> float:
        return cast("BottleneckLayer", layer).fixed_scaling

    up, up_bias = (
        work.scaled(of(read), fixed) for read in (lambda layer: layer.up.weight, lambda layer: layer.up.bias)
    )
    if any(layer is not None and layer.scaling is not None for layer in _layers(work)):
        scaling = of(lambda layer: learned(layer).expand(up_bias.shape[-1]))
        up, up_bias = up * scaling[:, :, None], up_bias * scaling
    down, down_bias = of(lambda layer: layer.down.weight), of(lambda layer: layer.down.bias)
    down, down_bias, up, up_bias = (tensor.to(dtype) for tensor in (down, down_bias[:, None], up, up_bias[:, None]))
    return down.transpose(1, 2), down_bias, up.transpose(1, 2), up_bias


def _layers(work: Work) -> Sequence[BottleneckLayer | None]:
    return cast("Sequence[BottleneckLayer | None]", work.layers)
