"""Activation checkpointing: the inside of a layer is computed again when the gradient comes to it (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.deck.adapter import Adapter
from tunedeck.methods.routing import Router
from tunedeck.models.load import LoadedBase


@contextmanager
def checkpointed(base: LoadedBase, router: Router, adapter: Adapter, layers: bool | int) -> Iterator[None]:
    """While the block runs, the lowest `layers` of the base (True: all but the last, whose turn comes at once) keep their inputs alone for the backward pass.

    transformers' own checkpointing needs the train mode, in which the base would drop out, and forgets which adapter a row
    belongs to. Raises ConfigError for an architecture that is not known and for full fine-tuning, whose weights stand in for the base's
    during the forward pass alone.
    """
    if layers is False:
        yield
        return
    if base.spec is None or not base.prefix:
        raise ConfigError(say("training.checkpointing: the layers of this architecture are not known; leave it out"))
    if adapter.built.weights:
        raise ConfigError(say("training.checkpointing works with lora, bottleneck and prompt_tuning, not with full"))
    found = base.model.get_submodule(f"{base.prefix}.{base.spec.layers}")
    assert isinstance(found, nn.ModuleList)
    chosen = list(found)[:-1][: None if layers is True else layers]
    for layer in chosen:
        layer.forward = _recomputed(layer.forward, router)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward  # the class's own again


def _recomputed(forward: Callable[..., Any], router: Router) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        segments = router.segments
        args = tuple(map(_without_cache, args))
        kwargs = {key: _without_cache(value) for key, value in kwargs.items()}

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), router.routed(segments)

        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return call


def _without_cache(value: Any) -> Any:
    """Nothing in place of a key-value cache, which a second pass would fill twice."""
    return None if isinstance(value, Cache) else value
