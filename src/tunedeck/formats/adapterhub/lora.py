"""LoRA in AdapterHub's form: `lora_A` and `lora_B` at its places, with one rank and one scale, alpha / r, for all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.core.errors import UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.formats.adapterhub.places import (
    cannot_hold,
    hub_name,
    paths_of,
    read_places,
    read_tensors,
    write_places,
)
from tunedeck.formats.tensors import ModelNames, StoredAdapter
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.lora.config import LoraConfig

# LoRAConfig's fields that we do not vary, and the only value they may have in a file we read.
_FIXED: dict[str, Any] = {
    "architecture": "lora",
    "composition_mode": "add",
    "dtype": None,
    "init_weights": "lora",
    "init_weights_seed": None,
    "use_dora": False,
    "use_gating": False,
    "vera_b": None,
    "vera_d": None,
}
_CHANGES_RESULT = ("composition_mode", "use_dora", "use_gating", "vera_b", "vera_d")
_SCALED_BY_ALPHA = (1, 1)
"""The first version that divides alpha by r; files of those before were trained with a scale of 1."""
_PARAMETERS = {"lora_A": "lora_A", "lora_B": "lora_B"}


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is a LoRA."""
    return isinstance(config, LoraConfig)


def read(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], names: ModelNames, *, ours: bool
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Return our config and the tensors by our names.

    Raises UnsupportedKindError where a setting changes the result or the model has no place, AdapterFileError for a
    tensor of another form.
    """
    values = {"r": 8, "alpha": 8, **config["config"]}
    changed = [key for key in _CHANGES_RESULT if values.get(key) not in (_FIXED[key], None)]
    if changed:
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind="LoRA",
                settings=listing(f"{key}={values[key]!r}" for key in changed),
            )
        )
    places = read_places(values, names)
    old = _version(str(config.get("version", ""))) < _SCALED_BY_ALPHA
    method = LoraConfig(
        r=int(values["r"]),
        lora_alpha=float(values["r"] if old else values["alpha"]),
        lora_dropout=float(values.get("dropout", 0.0)),
        target_modules=places.targets,
        layers_to_transform=places.layers,
    )
    return method, read_tensors(tensors, str(config["name"]), names, _PARAMETERS)


def write(
    adapter: StoredAdapter, adapter_name: str, names: ModelNames
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the method's part of an adapter_config.json and the tensors by AdapterHub's names.

    Raises UnsupportedKindError for a LoRA that AdapterHub cannot hold.
    """
    config = adapter.config
    assert isinstance(config, LoraConfig)
    places = write_places(adapter, names)
    if config.use_dora:
        raise cannot_hold(say("it has magnitudes (use_dora)"), names)
    ranks = {config.rank(path) for path in paths_of(adapter)}
    scales = {config.scaling(path) for path in paths_of(adapter)}
    if len(ranks) > 1 or len(scales) > 1:
        raise cannot_hold(say("its patches have different ranks or scales"), names)
    (r,), (scale,) = ranks, scales
    alpha = config.lora_alpha if config.lora_alpha / r == scale else scale * r
    values = {
        **_FIXED,
        **places,
        "alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "dropout": config.lora_dropout,
        "r": r,
    }
    return values, {hub_name(n, adapter_name, n.rpartition(".")[2]): t for n, t in adapter.tensors.items()}


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers of `adapters.1.3.0`; a file without a version counts as new."""
    numbers = re.fullmatch(r"adapters\.(\d+)\.(\d+).*", text)
    return tuple(int(number) for number in numbers.groups()) if numbers else (99,)
