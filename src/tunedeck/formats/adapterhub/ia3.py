"""(IA)³ in AdapterHub's form: LoRA's places with `composition_mode: scale`; `lora_B` (out, 1) scales an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.core.errors import UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.formats.adapterhub.places import cannot_hold, hub_name, paths_of, read_places, read_tensors, write_places
from tunedeck.formats.tensors import ModelNames, StoredAdapter
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.ia3.config import Ia3Config

# LoRAConfig's fields with the values of IA3Config.
_FIXED: dict[str, Any] = {
    "alpha": 1,
    "architecture": "lora",
    "composition_mode": "scale",
    "dropout": 0.0,
    "dtype": None,
    "init_weights": "ia3",
    "init_weights_seed": None,
    "r": 1,
    "use_dora": False,
    "use_gating": False,
    "vera_b": None,
    "vera_d": None,
}
_CHANGES_RESULT = ("alpha", "r", "use_dora", "use_gating")


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is an (IA)³ adapter."""
    return isinstance(config, Ia3Config)


def read(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], names: ModelNames, *, ours: bool
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Return our config and the tensors by our names.

    Raises UnsupportedKindError where a setting changes the result or the model has no place, AdapterFileError for a
    tensor of another form.
    """
    values = config["config"]
    changed = [key for key in _CHANGES_RESULT if values.get(key, _FIXED[key]) not in (_FIXED[key], None)]
    if changed:
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind="(IA)³",
                settings=listing(f"{key}={values[key]!r}" for key in changed),
            )
        )
    places = read_places(values, names)
    method = Ia3Config(places.targets if places.layers is None else places.paths, feedforward_modules=())
    body = read_tensors(tensors, str(config["name"]), names, {"lora_B": "ia3_l"})
    return method, {name: tensor.flatten() for name, tensor in body.items()}


def write(
    adapter: StoredAdapter, adapter_name: str, names: ModelNames
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the method's part of an adapter_config.json and the tensors by AdapterHub's names.

    Raises UnsupportedKindError where a vector scales an input, or is where AdapterHub has no place.
    """
    config = adapter.config
    assert isinstance(config, Ia3Config)
    places = write_places(adapter, names)
    if inputs := config.scaled_inputs(paths_of(adapter), names.spec):
        reason = say("it scales the input of {path}, and AdapterHub scales outputs", path=min(inputs))
        raise cannot_hold(reason, names)
    tensors = {hub_name(name, adapter_name, "lora_B"): tensor[:, None] for name, tensor in adapter.tensors.items()}
    return {**_FIXED, **places}, tensors
