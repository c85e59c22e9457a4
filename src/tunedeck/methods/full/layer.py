"""Full fine-tuning: copies of the base's tensors that replace them while the adapter's rows run."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

import torch
from torch import nn

from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import say
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.full.config import FullConfig
from tunedeck.methods.packed_embedding import PackedEmbedding, packed_embeddings

T = TypeVar("T")


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the chosen base parameters."""
    assert isinstance(config, FullConfig)
    return {name: tuple(found.shape) for name, found in _chosen(base, config).items()}


def build(base: Base, config: MethodConfig) -> Built:
    """Return trainable float32 copies of the chosen base parameters, by their names."""
    assert isinstance(config, FullConfig)
    dense = {
        name: found.dense() if isinstance(found, PackedEmbedding) else found.detach()
        for name, found in _chosen(base, config).items()
    }
    return Built(weights={name: nn.Parameter(t.to(torch.float32, copy=True)) for name, t in dense.items()})


def merge(model: nn.Module, built: Built) -> None:
    """Put the trained tensors in the base's place, in its precision."""
    with torch.no_grad():
        for name, weight in built.weights.items():
            model.get_parameter(name).copy_(weight)


def _chosen(base: Base, config: FullConfig) -> dict[str, nn.Parameter | PackedEmbedding]:
    """Return the base's parameters that train, by name; a packed embedding counts as its table."""
    if config.layers == "head":
        return {}
    start, head = f"{base.prefix}." if base.prefix else "", tuple(f"{path}." for path in base.head)
    packed = {f"{path}.weight": embedding for path, embedding in packed_embeddings(base.model).items()}
    everything: dict[str, nn.Parameter | PackedEmbedding] = {**packed, **dict(base.model.named_parameters())}
    named = {name: found for name, found in everything.items() if name.startswith(start) and not name.startswith(head)}
    if isinstance(config.layers, int):
        total = base.spec.num_layers if base.spec else cast(Any, base.model).config.num_hidden_layers
        named = _top_layers(named, config, total)
    quantized = (name for name, p in named.items() if isinstance(p, nn.Parameter) and not p.is_floating_point())
    if (first := next(quantized, None)) is not None:
        raise TargetError(
            say(
                "full fine-tuning cannot train {name}: this base is quantized; load it without quantize, "
                "train lora on it, or the head only",
                name=first,
            )
        )
    return named


def _top_layers(named: dict[str, T], config: FullConfig, num_layers: int) -> dict[str, T]:
    """Return the last k layers and everything outside the embeddings and the layers: final norm, pooler."""
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
