"""The LoRA layer: y = W x + scaling · B A x, its formula written once for batches of one adapter and of many."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias, cast, final

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tunedeck.core.i18n import say
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.linears import dense_weight, is_conv1d, linear_shape, targeted_linears
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.methods.lora.dora import has_lengths, row_lengths, scale_to_length
from tunedeck.methods.lora.side_by_side import side_by_side
from tunedeck.methods.sites import (
    LinearHook,
    Placement,
    RowDispatch,
    add_rounded,
    check_rows,
    dtype_of_products,
    map_active_rows,
    map_rows,
)


@final
class LoraLayer(nn.Module):
    """A (r, in) and B (out, r), float32; B starts at zero, so that a fresh layer changes nothing.

    `lengths` (out,), those of the weight's rows, makes it a DoRA layer, see dora.py.
    """

    lora_magnitude_vector: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        r: int,
        scaling: float,
        dropout: float,
        lengths: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(r, in_features))
        self.lora_B = nn.Parameter(torch.zeros(out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.register_parameter("lora_magnitude_vector", None if lengths is None else nn.Parameter(lengths))
        self.scaling = scaling
        self.dropout = dropout
        self.is_dora = lengths is not None

    def delta(self) -> torch.Tensor:
        """Return scaling · B A, (out, in), float32."""
        return self.scaling * (self.lora_B.float() @ self.lora_A.float())


@final
class FrozenLoraLayer:
    """A LoRA layer of an adapter that only answers; `gain` is DoRA's, once it is known."""

    __slots__ = ("gain", "is_dora", "lora_A", "lora_B", "lora_magnitude_vector", "scaling")
    training, dropout = False, 0.0

    def __init__(self, layer: nn.Module) -> None:
        assert isinstance(layer, LoraLayer)
        self.lora_A, self.lora_B, self.scaling = layer.lora_A, layer.lora_B, layer.scaling
        self.lora_magnitude_vector, self.is_dora = layer.lora_magnitude_vector, layer.is_dora
        self.gain: torch.Tensor | None = None

    def delta(self) -> torch.Tensor:
        """Return scaling · B A, (out, in), float32."""
        return self.scaling * (self.lora_B.float() @ self.lora_A.float())


AnyLoraLayer: TypeAlias = LoraLayer | FrozenLoraLayer


@dataclass(frozen=True, slots=True)
class LinearOutput:
    """The output of the linear layer at `path`, (batch, seq, out) or, with `sequence_first`, (seq, batch, out)."""

    path: str
    sequence_first: bool = False

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that adds scaling · B A x to the linear's output in the active rows."""
        hook = LinearHook(dispatch, _patched, side_by_side, self.sequence_first)
        return [model.get_submodule(self.path).register_forward_hook(hook)]


def _patched(linear: nn.Module, x: torch.Tensor, output: torch.Tensor, now: RowDispatch) -> torch.Tensor:
    output = add_low_rank(x, output, now)
    return scale_to_length(linear, output, now) if has_lengths(now) else output


_linear_output = lru_cache(maxsize=8192)(LinearOutput)
"""Adapters share their places: of a thousand small ones they are two megabytes."""


def add_low_rank(x: torch.Tensor, output: torch.Tensor, dispatch: RowDispatch) -> torch.Tensor:
    """`output` (batch, ..., out) plus scaling · B A x for the rows of each adapter; x is (batch, ..., in).

    Several adapters at once are one batched product over the rows, each row with its A and B: faster at every
    length than a product for each adapter or than all adapters side by side (bench/mixed_batch.py).
    """
    layers: list[AnyLoraLayer | None] = dispatch.layers
    if any(layer is not None and layer.training and layer.dropout > 0 for layer in layers):
        x = map_rows(x, dispatch, lambda layer, rows: F.dropout(x[rows], layer.dropout))
    check_rows(x, dispatch)
    own = dispatch.active_rows(x)
    if len(layers) == 1 and layers[0] is not None:
        x = own.to(dtype_of_products(output)).flatten(0, -2)
        return map_active_rows(output, dispatch, 2, partial(_add_one, x, layers[0]))
    dtype = dtype_of_products(output)
    a, b = dispatch.cached(dtype, partial(_stacked, dispatch, dtype))
    h = torch.bmm(own.to(dtype).reshape(len(own), -1, x.shape[-1]), a)
    if dtype != output.dtype:
        return map_active_rows(output, dispatch, 3, lambda its, out: add_rounded(its, torch.bmm(h, b), out))
    return map_active_rows(output, dispatch, 3, lambda its, out: torch.baddbmm(its, h, b, out=out))


def _add_one(x: torch.Tensor, layer: AnyLoraLayer, its: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    h = F.linear(x, layer.lora_A.to(x.dtype))
    if x.dtype != its.dtype:
        return add_rounded(its, F.linear(h * layer.scaling, layer.lora_B.to(x.dtype)), out)
    return torch.addmm(its, h, layer.lora_B.to(x.dtype).t(), alpha=layer.scaling, out=out)


def _stacked(dispatch: RowDispatch, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scaling · Aᵀ (rows, in, r) and Bᵀ (rows, r, out), padded with zeros to the largest r; 0 for the base.

    What is cached is laid out for its product once; in training that would cost more than it gains.
    """
    a = dispatch.scaled(dispatch.stacked(lambda layer: layer.lora_A), lambda layer: layer.scaling)
    b = dispatch.stacked(lambda layer: layer.lora_B)
    a, b = a.to(dtype).transpose(1, 2), b.to(dtype).transpose(1, 2)
    return a, b if torch.is_grad_enabled() else b.contiguous()


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of A and B, and with DoRA of the lengths, at every targeted linear layer."""
    assert isinstance(config, LoraConfig)
    found: dict[str, tuple[int, ...]] = {}
    for path in targeted_linears(base, config.target_modules, config.layers_to_transform):
        in_features, out_features = linear_shape(base.model.get_submodule(path))
        r = config.rank(path)
        found |= {f"{path}.lora_A": (r, in_features), f"{path}.lora_B": (out_features, r)}
        found |= {f"{path}.lora_magnitude_vector": (out_features,)} if config.use_dora else {}
    return found


def build(base: Base, config: MethodConfig) -> Built:
    """Return a LoRA layer at every targeted linear layer, named by its path."""
    assert isinstance(config, LoraConfig)
    sequence_first = base.spec is not None and base.spec.sequence_first
    placements, oversized = {}, dict[str, tuple[int, int]]()
    for path in targeted_linears(base, config.target_modules, config.layers_to_transform):
        linear = base.model.get_submodule(path)
        in_features, out_features = linear_shape(linear)
        if (rank := config.rank(path)) > min(in_features, out_features):
            oversized[path] = (rank, min(in_features, out_features))
        lengths = row_lengths(linear) if config.use_dora else None
        layer = LoraLayer(in_features, out_features, rank, config.scaling(path), config.lora_dropout, lengths)
        placements[path] = Placement(_linear_output(path, sequence_first), layer)
    if oversized:
        path, (rank, size) = next(iter(oversized.items()))
        warnings.warn(
            say(
                "the rank {rank} is above the size {size} of the layer {path}: "
                "a lower rank learns as much in less memory",
                rank=rank,
                size=size,
                path=path,
            ),
            stacklevel=2,
        )
    return Built(placements=placements, frozen_layer=FrozenLoraLayer)


def merge(model: nn.Module, built: Built) -> None:
    """Write W + scaling · B A, with DoRA its rows scaled to their lengths, computed in float32 and stored in the
    weight's precision.
    """
    for path, placement in built.placements.items():
        module, layer = model.get_submodule(path), placement.layer
        assert isinstance(layer, LoraLayer)
        weight = cast(torch.Tensor, module.weight)
        with torch.no_grad():
            patched = dense_weight(module).float() + layer.delta().to(weight.device)
            if (lengths := layer.lora_magnitude_vector) is not None:
                patched *= (lengths.to(weight.device) / torch.linalg.norm(patched, dim=1))[:, None]
            weight.copy_(patched.T if is_conv1d(module) else patched)  # a Conv1D keeps (in, out)
