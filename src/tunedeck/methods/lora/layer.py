"""The LoRA layer: y = W x + scaling · B A x."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import say
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.linears import is_conv1d, linear_shape, linears_in_layers, linears_outside_layers
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.methods.lora.grouped import add_low_rank
from tunedeck.methods.sites import Placement, Work
from tunedeck.methods.targets import select_targets


@final
class LoraLayer(nn.Module):
    """A (r, in) and B (out, r), float32; B starts at zero, so that a fresh layer changes nothing."""

    def __init__(self, in_features: int, out_features: int, r: int, scaling: float, dropout: float) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(r, in_features))
        self.lora_B = nn.Parameter(torch.zeros(out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = scaling
        self.dropout = dropout

    def delta(self) -> torch.Tensor:
        """scaling · B A, (out, in), float32."""
        return self.scaling * (self.lora_B.float() @ self.lora_A.float())


@dataclass(frozen=True, slots=True)
class LinearOutput:
    """The output of the linear layer at `path`, (batch, seq, out) or, with `sequence_first`, (seq, batch, out)."""

    path: str
    sequence_first: bool = False

    def install(self, model: nn.Module, work: Callable[[], Work | None]) -> Sequence[RemovableHandle]:
        def hook(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            now = work()
            if now is None:
                return output
            if not self.sequence_first:
                return add_low_rank(args[0], output, now)
            return add_low_rank(args[0].transpose(0, 1), output.transpose(0, 1), now).transpose(0, 1)

        return [model.get_submodule(self.path).register_forward_hook(hook)]


_linear_output = cache(LinearOutput)
"""Adapters share their places: of a thousand small ones they are two megabytes."""


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """A and B at every targeted linear."""
    assert isinstance(config, LoraConfig)
    found: dict[str, tuple[int, ...]] = {}
    for path in _targets(base, config):
        in_features, out_features = linear_shape(base.model.get_submodule(path))
        r = config.rank(path)
        found |= {f"{path}.lora_A": (r, in_features), f"{path}.lora_B": (out_features, r)}
    return found


def build(base: Base, config: MethodConfig) -> Built:
    """A LoRA layer at every targeted linear, named by the linear's path."""
    assert isinstance(config, LoraConfig)
    sequence_first = base.spec is not None and base.spec.sequence_first
    placements = {}
    for path in _targets(base, config):
        in_features, out_features = linear_shape(base.model.get_submodule(path))
        layer = LoraLayer(in_features, out_features, config.rank(path), config.scaling(path), config.lora_dropout)
        placements[path] = Placement(_linear_output(path, sequence_first), layer)
    return Built(placements=placements)


def merge(model: nn.Module, built: Built) -> None:
    """W + scaling · B A, computed in float32 and stored in the weight's own precision."""
    for path, placement in built.placements.items():
        module, layer = model.get_submodule(path), placement.layer
        assert isinstance(layer, LoraLayer)
        weight = cast(torch.Tensor, module.weight)
        delta = layer.delta()
        if is_conv1d(module):  # it keeps (in, out)
            delta = delta.T
        with torch.no_grad():
            weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))


def _targets(base: Base, config: LoraConfig) -> list[str]:
    """The paths of the linears that the config means, in model order."""
    targets = config.target_modules or (base.spec.lora_targets if base.spec else None)
    if targets is None:
        raise TargetError(
            say(
                "no default target_modules are known for this architecture; name some, or use target_modules: all-linear"
            )
        )
    linears = linears_in_layers(base.model, base.prefix)
    if not isinstance(targets, str):  # a linear outside the layers, a pooler's for example, by its full path alone
        outside = [path for path in linears_outside_layers(base.model, base.prefix) if path in targets]
        linears += [path for path in outside if not any(f"{path}.".startswith(f"{head}.") for head in base.head)]
    return select_targets(targets, linears, layers_to_transform=config.layers_to_transform)
