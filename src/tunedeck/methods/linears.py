"""The linear layers of a model, whatever class they are: nn.Linear, transformers' Conv1D, a quantised linear.

bitsandbytes' linears are of the class nn.Linear themselves.
"""

from __future__ import annotations

import re
from sys import intern
from typing import cast

import torch
from torch import nn

from tunedeck.methods.int8 import Int8Linear


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies by one weight matrix."""
    return isinstance(module, nn.Linear | Int8Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is transformers' Conv1D, which keeps its weight as (in, out)."""
    return type(module).__name__ == "Conv1D"


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear layer."""
    if isinstance(module, nn.Linear | Int8Linear):
        return module.in_features, module.out_features
    in_features, out_features = cast(torch.Tensor, module.weight).shape
    return in_features, out_features


def linears_in_layers(model: nn.Module, prefix: str) -> list[str]:
    """Paths of the linear layers inside the numbered layers of the base: no embedding, pooler, head or output layer."""
    return [path for path, inside in _linears(model, prefix) if inside]


def linears_outside_layers(model: nn.Module, prefix: str) -> list[str]:
    """Paths of all other linear layers: pooler, head, output layer."""
    return [path for path, inside in _linears(model, prefix) if not inside]


def _linears(model: nn.Module, prefix: str) -> list[tuple[str, bool]]:
    """The path of every linear layer, and whether it lies inside a numbered layer of the base."""
    layer = re.compile((re.escape(prefix) + r"\." if prefix else "") + r"(?:.*\.)?\d+\.")
    return [(intern(path), bool(layer.match(path))) for path, module in model.named_modules() if is_linear(module)]
