"""A plain transformers model with an adapter written into its weights."""

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import torch
from torch import nn

from tunedeck.core.compat.transformers import model_from_config
from tunedeck.core.errors import AdapterError, UnsupportedKindError
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.heads import PooledOutput
from tunedeck.deck.task import pooling_of
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.linears import dense_weight, is_conv1d, is_linear
from tunedeck.methods.packed_embedding import packed_embeddings
from tunedeck.methods.registry import method_of
from tunedeck.methods.sites import RowDispatch
from tunedeck.models.load import LoadedBase
from tunedeck.models.quantize import base_parts


def merged_model(base: LoadedBase, adapter: Adapter, dequantize: bool = False) -> nn.Module:
    """Return a new model of the base's class and precision; the base itself is untouched.

    A head on pooled states, which no class of transformers has, works as a hook and is not in the model's state dict.
    Raises UnsupportedKindError for kinds that have no equivalent in the base's weights; AdapterError for a quantized
    base unless `dequantize`, which unpacks its weights first and warns of what that loses.
    """
    original: Any = base.model
    check_mergeable(adapter.config)
    if base.quantize is not None:
        _agree_to_unpack(base, adapter.name, dequantize)
    config = copy.deepcopy(original.config)
    pooling = pooling_of(adapter.task)
    if pooling == "model" and adapter.head and adapter.labels:
        config.num_labels = len(adapter.labels)
        config.id2label = dict(enumerate(adapter.labels))
        config.label2id = {label: index for index, label in enumerate(adapter.labels)}
    config.architectures = [type(original).__name__]
    merged = model_from_config(type(original), config, base.dtype).to(original.device).eval().requires_grad_(False)
    heads = tuple(f"{path}." for path in adapter.head)
    state = dict(original.state_dict()) if base.quantize is None else _dequantized(original, merged)
    state |= {f"{path}.weight": embedding.dense() for path, embedding in packed_embeddings(original).items()}
    state = {name: t for name, t in state.items() if not heads or not name.startswith(heads)}
    merged.load_state_dict(state, strict=False)
    method_of(adapter.config).merge(merged, adapter.built)
    if pooling != "model":
        (head,) = adapter.head.values()
        everything = RowDispatch([(slice(None), head)])
        PooledOutput(pooling).install(merged, lambda: everything)
        return cast(nn.Module, merged)
    with torch.no_grad():
        for name, tensor in adapter.head_tensors().items():
            merged.get_parameter(name).copy_(tensor)
    return cast(nn.Module, merged)


def check_mergeable(config: MethodConfig) -> None:
    """Raise UnsupportedKindError for a method that has no equivalent in the base's weights."""
    if not config.mergeable:
        raise UnsupportedKindError(
            say(
                "a {kind} adapter cannot be merged into the base's weights; serve it on the base, or train lora",
                kind=config.kind.replace("_", " "),
            )
        )


def _agree_to_unpack(base: LoadedBase, name: str, dequantize: bool) -> None:
    dtype = str(base.dtype).removeprefix("torch.")
    if not dequantize:
        raise AdapterError(
            say(
                "the base is quantized to {scheme}, so {name!r} cannot be written into its weights; "
                "deck.merge({name!r}, dequantize=True) (--dequantize) merges into weights dequantized to "
                "{dtype}, or load the base without quantize (--quantize none) and merge there",
                scheme=base.quantize,
                name=name,
                dtype=dtype,
            )
        )
    parts = base_parts(base.model, base.prefix)
    warnings.warn(
        say(
            "merged into weights dequantized from {scheme} to {dtype}: they keep the rounding of {scheme}, so "
            "this is not the "
            "original base with {name!r} in it, and they take {after:.0f} MB instead of {before:.0f}; quantize "
            "the result again "
            "and its answers change, for the adapter is rounded with the weights",
            scheme=base.quantize,
            dtype=dtype,
            name=name,
            before=sum(part.bytes for part in parts) / 1e6,
            after=sum(part.parameters for part in parts) * base.dtype.itemsize / 1e6,
        ),
        stacklevel=4,
    )


def _dequantized(original: nn.Module, merged: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a quantized model as `merged`, which is of the same class, keeps it: a Conv1D's weight is
    (in, out).
    """
    state = dict(original.state_dict())
    for path, module in original.named_modules():
        if is_linear(module):
            weight = dense_weight(module)
            state[f"{path}.weight"] = weight.T if is_conv1d(merged.get_submodule(path)) else weight
    return state
