"""Prefix tuning in PEFT's form: `prompt_embeddings`, (tokens, layers * 2 * heads * size), and `base_model.<head>`.

A prefix that was trained through a projection (`prefix_projection`) is stored as what came out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig

HEAD = "base_model."
READ = frozenset(
    ("num_virtual_tokens", "num_transformer_submodules", "prefix_projection", "encoder_hidden_size", "init_weights")
)
_THEIRS = "prompt_embeddings"
_PARTS = ("prefix_keys", "prefix_values")


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is a prefix whose text has positions behind it."""
    return isinstance(config, PrefixTuningConfig) and config.stored_as == "peft"


def read(
    config: Mapping[str, Any], tensors: dict[str, torch.Tensor], names: ModelNames
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Take the prefix out of a file's tensors, in as many pieces as this model has keys and values."""
    method = PrefixTuningConfig(int(config["num_virtual_tokens"]), "RANDOM", shift_positions=True)
    paths = [names.in_model(path) for path in method.attentions(names.spec, names.model_type)]
    prefix = tensors.pop(_THEIRS, None)
    if prefix is None:
        return method, {}
    own = (f"{path}.{part}" for path in paths for part in _PARTS)
    return method, dict(zip(own, prefix.tensor_split(2 * len(paths), dim=1), strict=True))


def write(
    config: MethodConfig, tensors: dict[str, torch.Tensor], names: ModelNames, bare: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the settings and the tensors of a file."""
    assert isinstance(config, PrefixTuningConfig)
    assert names.spec is not None
    width = names.spec.key_value_size
    paths = [names.in_model(path) for path in config.attentions(names.spec, names.model_type)]
    settings = {
        "encoder_hidden_size": width,
        "init_weights": None,
        "num_attention_heads": names.spec.key_value_heads,
        "num_layers": names.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": config.num_virtual_tokens,
        "prefix_projection": False,
        "token_dim": width,
    }
    return settings, {_THEIRS: torch.cat([tensors[f"{path}.{part}"] for path in paths for part in _PARTS], dim=1)}
