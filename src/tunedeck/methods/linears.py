"""Find the linear layers of a model of any class: nn.Linear, transformers' Conv1D, quantized layers.

bitsandbytes' linear layers are of the class nn.Linear themselves.
"""

from __future__ import annotations

import re
from sys import intern
from typing import Any, cast

import torch
from torch import nn

from tunedeck.core.compat.bitsandbytes import is_nf4, nf4_dense
from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import say
from tunedeck.methods.base import Base
from tunedeck.methods.int8 import Int8Linear
from tunedeck.methods.targets import select_targets


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module multiplies by one weight matrix."""
    return isinstance(module, nn.Linear | Int8Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """Tell whether a module is transformers' Conv1D, which keeps its weight as (in, out)."""
    return type(module).__name__ == "Conv1D"


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """Return (in_features, out_features) of a linear layer."""
    if isinstance(module, nn.Linear | Int8Linear):
        return module.in_features, module.out_features
    in_features, out_features = cast(torch.Tensor, module.weight).shape
    return in_features, out_features


def dense_weight(module: nn.Module) -> torch.Tensor:
    """Return a linear layer's weight (out, in) in the precision it computes in, dequantized if it is quantized."""
    if isinstance(module, Int8Linear):
        return module.dense()
    weight: Any = module.weight
    if is_nf4(weight):
        return nf4_dense(weight)
    return cast(torch.Tensor, weight.detach().T if is_conv1d(module) else weight.detach())


def linears_in_layers(model: nn.Module, prefix: str) -> list[str]:
    """Return paths of the linear layers inside the numbered layers of the base: no embedding, pooler, head or output
    layer.
    """
    return [path for path, inside in _linears(model, prefix) if inside]


def linears_outside_layers(model: nn.Module, prefix: str) -> list[str]:
    """Return paths of all other linear layers: pooler, head, output layer."""
    return [path for path, inside in _linears(model, prefix) if not inside]


def targeted_linears(
    base: Base, target_modules: tuple[str, ...] | str | None, layers_to_transform: tuple[int, ...] | None = None
) -> list[str]:
    """Return paths of the linear layers that `target_modules` selects, in model order; None takes the architecture's
    default.

    A linear outside the layers, a pooler's for example, is meant by its full path alone. Raises TargetError where
    nothing matches, only some layers do, or the architecture has no default.
    """
    targets = target_modules or (base.spec.lora_targets if base.spec else None)
    if targets is None:
        raise TargetError(
            say(
                "no default target_modules are known for this architecture; name some, or use target_modules: "
                "all-linear"
            )
        )
    linears = linears_in_layers(base.model, base.prefix)
    if not isinstance(targets, str):
        outside = [path for path in linears_outside_layers(base.model, base.prefix) if path in targets]
        linears += [path for path in outside if not any(f"{path}.".startswith(f"{head}.") for head in base.head)]
    return select_targets(targets, linears, layers_to_transform=layers_to_transform)


def layer_pattern(prefix: str) -> re.Pattern[str]:
    """Return the pattern that begins the path of a module inside a numbered layer of the base."""
    return re.compile((re.escape(prefix) + r"\." if prefix else "") + r"(?:.*\.)?\d+\.")


def _linears(model: nn.Module, prefix: str) -> list[tuple[str, bool]]:
    """The path of every linear layer, and whether it is inside a numbered layer of the base."""
    layer = layer_pattern(prefix)
    return [(intern(path), bool(layer.match(path))) for path, module in model.named_modules() if is_linear(module)]
