"""Norms in PEFT's form, LN_TUNING: `base_model.model.<path>.ln_tuning_layers.weight` and `.bias`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.bias.config import BiasConfig

HEAD = "base_model.model."
READ = frozenset(("target_modules",))
_KEY = re.compile(r"(.+)\.ln_tuning_layers\.(weight|bias)")


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter trains norms alone."""
    return isinstance(config, BiasConfig) and config.vectors == "norms"


def read(
    config: Mapping[str, Any], tensors: dict[str, torch.Tensor], names: ModelNames
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Take the norms out of a file's tensors; the config names each by its path."""
    body = {}
    for key in list(tensors):
        if match := _KEY.fullmatch(key.removeprefix(HEAD)):
            body[f"{names.in_model(match.group(1))}.{match.group(2)}"] = tensors.pop(key)
    paths = dict.fromkeys(name.rpartition(".")[0] for name in body)
    return BiasConfig("norms", norm_modules=tuple(paths)), body


def write(
    config: MethodConfig, tensors: dict[str, torch.Tensor], names: ModelNames, bare: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the settings, which name each norm by its whole path, and the tensors of a file."""
    own = {name.removeprefix(bare).rpartition("."): tensor for name, tensor in tensors.items()}
    written = {f"{HEAD}{path}.ln_tuning_layers.{name}": tensor for (path, _, name), tensor in own.items()}
    return {"target_modules": sorted({path for path, _, _ in own})}, written
