"""The (IA)³ layer: y = l ⊙ (W x + b), or y = W (l ⊙ x) + b where the input is scaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast, final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.ia3.config import Ia3Config
from tunedeck.methods.linears import is_conv1d, linear_shape, targeted_linears
from tunedeck.methods.sites import Placement, RowDispatch, check_rows, row_vectors, with_active_rows


@final
class Ia3Layer(nn.Module):
    """ia3_l (out,) or, where the input is scaled, (in,), float32; it starts at one, so that it changes nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.ia3_l = nn.Parameter(torch.ones(size))


@final
class FrozenIa3Layer:
    """An (IA)³ layer of an adapter that only answers."""

    __slots__ = ("ia3_l",)

    def __init__(self, layer: nn.Module) -> None:
        assert isinstance(layer, Ia3Layer)
        self.ia3_l = layer.ia3_l


@dataclass(frozen=True, slots=True)
class LinearScale:
    """The input or the output of the linear layer at `path`, (batch, seq, size) or, with `sequence_first`, (seq,
    batch, size).
    """

    path: str
    of_input: bool
    sequence_first: bool = False

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that scales the active rows."""

        def scaled(x: torch.Tensor, now: RowDispatch) -> torch.Tensor:
            if not self.sequence_first:
                return scale_rows(x, now)
            return scale_rows(x.transpose(0, 1), now).transpose(0, 1)

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            now = dispatch()
            return None if now is None else (scaled(args[0], now), *args[1:])

        def after(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            now = dispatch()
            return output if now is None else scaled(output, now)

        linear = model.get_submodule(self.path)
        return [linear.register_forward_pre_hook(before) if self.of_input else linear.register_forward_hook(after)]


_linear_scale = lru_cache(maxsize=8192)(LinearScale)
"""Adapters share their places, as LoRA's do."""


def scale_rows(x: torch.Tensor, dispatch: RowDispatch) -> torch.Tensor:
    """Multiply each row of `x` (batch, ..., size) by its vector, in float32, rounded to the precision of x."""
    check_rows(x, dispatch)
    vectors = dispatch.cached(None, lambda: dispatch.stacked(lambda layer: layer.ia3_l, absent=1.0))
    changed = dispatch.active_rows(x) * row_vectors(vectors, x)
    return with_active_rows(x, dispatch, changed.to(x.dtype))


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of a vector for every targeted linear layer."""
    assert isinstance(config, Ia3Config)
    return {f"{path}.ia3_l": (size,) for path, (size, _) in _places(base, config).items()}


def build(base: Base, config: MethodConfig) -> Built:
    """Return a vector of ones for every targeted linear layer, named by its path."""
    assert isinstance(config, Ia3Config)
    sequence_first = base.spec is not None and base.spec.sequence_first
    placements = {
        path: Placement(_linear_scale(path, of_input, sequence_first), Ia3Layer(size))
        for path, (size, of_input) in _places(base, config).items()
    }
    return Built(placements=placements, frozen_layer=FrozenIa3Layer)


def merge(model: nn.Module, built: Built) -> None:
    """Scale W by columns where the input is scaled, else by rows and the bias with it; computed in float32."""
    for path, placement in built.placements.items():
        module, site = model.get_submodule(path), placement.site
        assert isinstance(site, LinearScale)
        weight = cast(torch.Tensor, module.weight)
        vector = placement.layer.ia3_l.detach().to(weight.device)
        by_last = site.of_input != is_conv1d(module)  # a Conv1D keeps (in, out)
        with torch.no_grad():
            weight.copy_(weight.float() * (vector if by_last else vector[:, None]))
            if not site.of_input and module.bias is not None:
                bias = cast(torch.Tensor, module.bias)
                bias.copy_(bias.float() * vector)


def _places(base: Base, config: Ia3Config) -> dict[str, tuple[int, bool]]:
    """Return the size of each targeted linear layer's vector, and whether it scales the input."""
    paths = targeted_linears(base, config.targets(base.spec))
    inputs = config.scaled_inputs(paths, base.spec)
    shape = {path: linear_shape(base.model.get_submodule(path)) for path in paths}
    return {path: (shape[path][0 if path in inputs else 1], path in inputs) for path in paths}
