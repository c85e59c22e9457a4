"""LoRA in PEFT's form: `base_model.model.<path>.lora_A.weight`, with DoRA `<path>.lora_magnitude_vector` as well."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.formats.peft.targets import read_targets, without_prefix, written_targets
from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.lora.config import LoraConfig

HEAD = "base_model.model."
READ = frozenset(
    (
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "layers_to_transform",
        "use_dora",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "bias",
        "init_lora_weights",
    )
)
_KEY = re.compile(r"(.+)\.(lora_[AB]|lora_magnitude_vector)(?:\.weight)?")


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is a LoRA."""
    return isinstance(config, LoraConfig)


def read(
    config: Mapping[str, Any], tensors: dict[str, torch.Tensor], names: ModelNames
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Take the LoRA's tensors out of a file's."""
    body = {}
    for key in list(tensors):
        if match := _KEY.fullmatch(key.removeprefix(HEAD)):
            body[f"{names.in_model(match.group(1))}.{match.group(2)}"] = tensors.pop(key)
    targets, layers = read_targets(config, {name.rpartition(".")[0] for name in body})
    method = LoraConfig(
        r=int(config.get("r", 8)),
        lora_alpha=float(config.get("lora_alpha", 8)),
        lora_dropout=float(config.get("lora_dropout", 0.0)),
        target_modules=targets,
        layers_to_transform=layers,
        use_rslora=bool(config.get("use_rslora", False)),
        rank_pattern=dict(config.get("rank_pattern") or {}),
        alpha_pattern=dict(config.get("alpha_pattern") or {}),
        use_dora=bool(config.get("use_dora", False)),
    )
    return method, body


def write(
    config: MethodConfig, tensors: dict[str, torch.Tensor], names: ModelNames, bare: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the settings and the tensors of a file."""
    assert isinstance(config, LoraConfig)
    own = {name.removeprefix(bare): tensor for name, tensor in tensors.items()}
    paths = {name.rpartition(".")[0] for name in own}
    settings = {
        "alpha_pattern": {path.removeprefix(bare): alpha for path, alpha in config.alpha_pattern.items()},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None if config.layers_to_transform is None else list(config.layers_to_transform),
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "r": config.r,
        "rank_pattern": {path.removeprefix(bare): rank for path, rank in config.rank_pattern.items()},
        "target_modules": written_targets(without_prefix(config.target_modules, bare), paths, names),
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
    }
    return settings, {f"{HEAD}{name}{'' if name.endswith('_vector') else '.weight'}": t for name, t in own.items()}
