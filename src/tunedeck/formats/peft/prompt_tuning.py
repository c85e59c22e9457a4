"""Prompt tuning in PEFT's form: one tensor `prompt_embeddings`, (tokens, hidden), and `base_model.<head>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig

HEAD = "base_model."
READ = frozenset(("num_virtual_tokens", "prompt_tuning_init", "prompt_tuning_init_text", "num_transformer_submodules"))
_OURS, _THEIRS = "prompt.prompt_embeddings", "prompt_embeddings"


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is a soft prompt."""
    return isinstance(config, PromptTuningConfig)


def read(
    config: Mapping[str, Any], tensors: dict[str, torch.Tensor], names: ModelNames
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Take the prompt out of a file's tensors."""
    prompt = tensors.pop(_THEIRS, None)
    return PromptTuningConfig(num_virtual_tokens=int(config["num_virtual_tokens"])), (
        {} if prompt is None else {_OURS: prompt}
    )


def write(
    config: MethodConfig, tensors: dict[str, torch.Tensor], names: ModelNames, bare: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the settings and the tensors of a file."""
    assert isinstance(config, PromptTuningConfig)
    settings = {
        "num_attention_heads": names.num_attention_heads,
        "num_layers": names.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": config.num_virtual_tokens,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "token_dim": tensors[_OURS].shape[1],
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
    }
    return settings, {_THEIRS: tensors[_OURS]}
