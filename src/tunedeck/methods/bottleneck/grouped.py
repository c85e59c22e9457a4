"""The bottleneck formula for a batch whose rows use different adapters, without gradients: two batched products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch

from tunedeck.methods.sites import Work

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
    down, down_bias, up, up_bias = work.kept(z.dtype, partial(_stacked, work, z.dtype))
    activation = next(layer.activation for layer in _layers(work) if layer is not None)
    inner = torch.baddbmm(down_bias, z.reshape(h.shape), down)
    return torch.add(h, torch.baddbmm(up_bias, activation(inner), up), out=out)


def _stacked(work: Work, dtype: torch.dtype) -> Stacked:
    """Wᵀ_down (rows, hidden, d), b_down (rows, 1, d), s·Wᵀ_up (rows, d, hidden), s·b_up (rows, 1, hidden), zeros up to the largest d."""

    def of(read: Callable[[BottleneckLayer], torch.Tensor]) -> torch.Tensor:
        return work.stacked(lambda layer: read(cast("BottleneckLayer", layer)))

    def scale(layer: BottleneckLayer) -> torch.Tensor:
        own = up_bias.new_tensor([layer.fixed_scaling]) if layer.scaling is None else layer.scaling
        return own.expand(up_bias.shape[-1])

    up, up_bias = of(lambda layer: layer.up.weight), of(lambda layer: layer.up.bias)
    scaling = of(scale)
    down, down_bias = of(lambda layer: layer.down.weight), of(lambda layer: layer.down.bias)
    own = down, down_bias[:, None], up * scaling[:, :, None], (up_bias * scaling)[:, None]
    down, down_bias, up, up_bias = (tensor.to(dtype) for tensor in own)
    return down.transpose(1, 2), down_bias, up.transpose(1, 2), up_bias


def _layers(work: Work) -> Sequence[BottleneckLayer | None]:
    return cast("Sequence[BottleneckLayer | None]", work.layers)
