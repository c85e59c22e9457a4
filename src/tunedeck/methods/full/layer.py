"""Full fine-tuning: copies of the base's tensors that stand in for them while the adapter's rows run."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import nn

from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import say
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.full.config import FullConfig


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Those of the chosen base parameters."""
    assert isinstance(config, FullConfig)
    return {name: tuple(parameter.shape) for name, parameter in _chosen(base, config).items()}


def build(base: Base, config: MethodConfig) -> Built:
    """Trainable float32 copies of the chosen base parameters, by their own names."""
    assert isinstance(config, FullConfig)
    named = _chosen(base, config)
    return Built(weights={name: nn.Parameter(p.detach().to(torch.float32, copy=True)) for name, p in named.items()})


def merge(model: nn.Module, built: Built) -> None:
    """Put the trained tensors in the base's place, in its precision."""
    with torch.no_grad():
        for name, weight in built.weights.items():
            model.get_parameter(name).copy_(weight)


def _chosen(base: Base, config: FullConfig) -> dict[str, nn.Parameter]:
    """The base's parameters that train, by name."""
    if config.layers == "head":
        return {}
    start, head = f"{base.prefix}." if base.prefix else "", tuple(f"{path}." for path in base.head)
    named = {
        name: p for name, p in base.model.named_parameters() if name.startswith(start) and not name.startswith(head)
    }
    if isinstance(config.layers, int):
        total = base.spec.num_layers if base.spec else cast(Any, base.model).config.num_hidden_layers
        named = _top_layers(named, config, total)
    packed = next((name for name, p in named.items() if not p.is_floating_point()), None)
    if packed is not None:
        raise TargetError(
            say(
                "full fine-tuning cannot train {name}: this base is quantised; load it without quantize, "
                "train lora on it, or the head alone",
                name=packed,
            )
        )
    return named


def _top_layers(named: dict[str, nn.Parameter], config: FullConfig, num_layers: int) -> dict[str, nn.Parameter]:
    """The last k layers and everything outside the embeddings and the layers: final norm, pooler."""
    config.check_depth(num_layers)
    assert isinstance(config.layers, int)
    first = num_layers - config.layers
    layer = {name: re.search(r"\.(\d+)\.", name) for name in named}
    first_layer = next(position for position, name in enumerate(named) if layer[name])
    return {
        name: parameter
        for position, (name, parameter) in enumerate(named.items())
        if ((match := layer[name]) and int(match.group(1)) >= first) or (not match and position > first_layer)
    }
