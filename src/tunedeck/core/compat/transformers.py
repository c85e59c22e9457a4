"""Private and often changing interfaces of transformers, as of 5.23."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import eager_mask
from transformers.utils import cached_file

__all__ = ["CacheLayerMixin", "DynamicLayer", "DynamicSlidingWindowLayer"]


def attention_of(model: nn.Module) -> str:
    """Return the name of the attention implementation that a model uses now, such as "eager" or "sdpa"."""
    return cast(str, cast(Any, model).config._attn_implementation)


def set_attention(model: nn.Module, name: str) -> None:
    """Switch the attention implementation; the layers read it at every call."""
    cast(Any, model).config._attn_implementation = name


def register_attention(name: str, attention: Callable[..., Any]) -> None:
    """Make an attention function known under a name; its mask is the one that is added to the scores."""
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, eager_mask)


def can_use_sdpa(model: nn.Module) -> bool:
    """Return whether a model can switch to torch's scaled_dot_product_attention."""
    return bool(cast(Any, model)._supports_sdpa and cast(Any, model)._can_set_attn_implementation())


def attention_is_plain(model: nn.Module) -> bool:
    """Return whether a model's attention can be replaced by plain products, softcapped where its config says so."""
    return can_use_sdpa(model) or (is_softcapped(model) and cast(Any, model)._can_set_attn_implementation())


def is_softcapped(model: nn.Module) -> bool:
    """Return whether a model limits the scores of its attention by a tanh, such as Gemma 2."""
    return getattr(cast(Any, model).config, "attn_logit_softcapping", None) is not None


def kept_in_float32(model: nn.Module) -> frozenset[str]:
    """Return the names of the modules that a model keeps in float32 in any precision, such as T5's `wo`."""
    return frozenset(model._keep_in_fp32_modules or ()) if isinstance(model, PreTrainedModel) else frozenset()


def model_from_config(model_class: type, config: Any, dtype: torch.dtype) -> Any:
    """Return a new model of this very class; the public `from_config` exists on the auto classes only."""
    return cast(Any, model_class)._from_config(config, dtype=dtype)


def hub_file(repository: str, name: str, *, local_files_only: bool) -> Path | None:
    """Return one file of a hub repository from the cache or the hub; None where it does not exist or cannot be had."""
    found = cached_file(
        repository,
        name,
        local_files_only=local_files_only,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def cache_of_layers(layers: Sequence[CacheLayerMixin]) -> Cache:
    """Return a key-value cache that consists of these layers."""
    return Cache(layers=list(layers))


def fill_cache_layer(layer: Any, keys: torch.Tensor, values: torch.Tensor, positions: int) -> None:
    """Replace what a layer of a cache holds; `positions` is the length of the sequence, which a window may exceed."""
    if not layer.is_initialized:
        layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = positions


def last_position(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the keyword that asks a causal language model for the logits of its last position only.

    A tensor, not the number 1: of a slice the CPU's product would copy the output layer for every row.
    """
    return {"logits_to_keep": torch.tensor([-1], device=device)}
