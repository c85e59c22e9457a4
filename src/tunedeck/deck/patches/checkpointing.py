"""Activation checkpointing: the inside of a layer is computed again when the gradient comes to it (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.methods.routing import Router
from tunedeck.models.load import LoadedBase


@contextmanager
def checkpointed(base: LoadedBase, router: Router, adapter: Adapter, layers: bool | int) -> Iterator[None]:
    """While the block runs, the lowest `layers` of the base (True: all but the last, whose turn comes at once) keep their inputs alone for the backward pass.

    transformers' own checkpointing needs the train mode, in which the base would drop out, and forgets which adapter a row
    belongs to. Raises ConfigError for an architecture that is not known.
    """
    if layers is False:
        yield
        return
    if base.spec is None or not base.prefix:
        raise ConfigError(say("training.checkpointing: the layers of this architecture are not known; leave it out"))
    found = base.model.get_submodule(f"{base.prefix}.{base.spec.layers}")
    assert isinstance(found, nn.ModuleList)
    chosen = list(found)[:-1][: None if layers is True else layers]
    for layer in chosen:
        layer.forward = _recomputed(layer, router, bool(adapter.built.weights))
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward  # the class's own again


def _recomputed(layer: nn.Module, router: Router, full: bool) -> Callable[..., Any]:
    """The layer's forward, computed again in the backward pass for the same rows and, with `full` fine-tuning, by the same weights."""
    forward = layer.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        segments = router.segments
        weights = dict(layer.named_parameters()) if full else {}  # those that stand in for the base's just now
        args = tuple(map(_without_cache, args))
        kwargs = {key: _without_cache(value) for key, value in kwargs.items()}

        @contextmanager
        def again() -> Iterator[None]:
            with router.routed(segments), _standing_in(layer, weights):
                yield

        return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again()), **kwargs)

    return call


@contextmanager
def _standing_in(layer: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """These tensors in the place of the layer's own parameters, as torch.func.functional_call puts them there for a forward pass."""
    before = dict(layer.named_parameters()) if weights else {}
    _put(layer, weights)
    try:
        yield
    finally:
        _put(layer, before)


def _put(layer: nn.Module, weights: Mapping[str, Any]) -> None:
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        layer.get_submodule(path)._parameters[last] = weight


def _without_cache(value: Any) -> Any:
    """Nothing in place of a key-value cache, which a second pass would fill twice."""
    return None if isinstance(value, Cache) else value
