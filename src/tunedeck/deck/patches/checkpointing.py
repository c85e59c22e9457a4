"""Gradient checkpointing: the inside of a layer is computed again in the backward pass (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from tunedeck.core.compat.torch import replace_parameter
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.patches.base import Forward, replaced_forward
from tunedeck.methods.routing import Router
from tunedeck.models.load import LoadedBase


@final
@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Keep only the inputs of the lowest `layers` for the backward pass (True: of all but the last, which comes first
    there).

    transformers' checkpointing needs the train mode, in which the base would drop out, and forgets which adapter a
    row belongs to.
    """

    router: Router
    adapter: Adapter
    layers: bool | int

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Recompute the layers while the block runs. Raises ConfigError for an architecture that is not known."""
        if self.layers is False:
            yield
            return
        layers = base.layers
        if layers is None:
            raise ConfigError(
                say("training.gradient_checkpointing: the layers of this architecture are not known; leave it out")
            )
        full = bool(self.adapter.built.weights)
        with ExitStack() as stack:
            for layer in list(layers)[:-1][: None if self.layers is True else self.layers]:
                stack.enter_context(replaced_forward(layer, _Recomputed(layer, self.router, full).wrap))
            yield


@final
@dataclass(frozen=True, slots=True)
class _Recomputed:
    """A layer, computed again for the same rows and, with `full` fine-tuning, by the same weights."""

    layer: nn.Module
    router: Router
    full: bool

    def wrap(self, forward: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            segments = self.router.segments
            weights = dict(self.layer.named_parameters()) if self.full else {}  # those in the place of the base's now
            args = tuple(map(_without_cache, args))
            kwargs = {key: _without_cache(value) for key, value in kwargs.items()}

            @contextmanager
            def again() -> Iterator[None]:
                with self.router.routed(segments), _weights_replaced(self.layer, weights):
                    yield

            return checkpoint(
                forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again()), **kwargs
            )

        return call


@contextmanager
def _weights_replaced(layer: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Put tensors in the place of the layer's parameters, as torch.func.functional_call does for a forward pass."""
    before = dict(layer.named_parameters()) if weights else {}
    _put(layer, weights)
    try:
        yield
    finally:
        _put(layer, before)


def _put(layer: nn.Module, weights: Mapping[str, Any]) -> None:
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        replace_parameter(layer.get_submodule(path), last, weight)


def _without_cache(value: Any) -> Any:
    """Return None in place of a key-value cache, which a second pass would fill twice."""
    return None if isinstance(value, Cache) else value
