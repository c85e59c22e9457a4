"""A plain transformers model with an adapter written into its weights."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from tunedeck.deck.adapter import Adapter
from tunedeck.methods.registry import method_of
from tunedeck.models.load import LoadedBase


def merged_model(base: LoadedBase, adapter: Adapter) -> nn.Module:
    """A new model of the base's class and precision; the base itself is untouched.

    Raises UnsupportedKindError for kinds that have no equivalent in the base's weights.
    """
    original: Any = base.model
    config = copy.deepcopy(original.config)
    if adapter.head and adapter.labels:
        config.num_labels = len(adapter.labels)
        config.id2label = dict(enumerate(adapter.labels))
        config.label2id = {label: index for index, label in enumerate(adapter.labels)}
    config.architectures = [type(original).__name__]
    merged = type(original)._from_config(config, dtype=base.dtype).to(original.device).eval().requires_grad_(False)
    heads = tuple(f"{path}." for path in adapter.head)
    state = (
        {name: t for name, t in original.state_dict().items() if not name.startswith(heads)}
        if heads
        else original.state_dict()
    )
    merged.load_state_dict(state, strict=False)
    method_of(adapter.config).merge(merged, adapter.built)
    with torch.no_grad():
        for name, tensor in adapter.head_tensors().items():
            merged.get_parameter(name).copy_(tensor)
    return cast(nn.Module, merged)
