"""Prefix tuning in AdapterHub's form: `<prefix>.prefix_tuning.prefix_tunings.<adapter>.<place>.control_trans`.

Every layer stores the same tensors once more, under `.prefix_tuning.pool.`. A reparametrised prefix is a table and a
small network; it is read as what comes out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.formats.tensors import ModelNames, StoredAdapter
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.bottleneck.layer import ACTIVATIONS
from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig

_PLACE = "self_prefix"
_PARTS = ("prefix_keys", "prefix_values")
# PrefixTuningConfig's fields with their values in adapters 1.3.0.
_FIXED: dict[str, Any] = {
    "architecture": "prefix_tuning",
    "bottleneck_size": 512,
    "cross_prefix": True,
    "dropout": 0.0,
    "encoder_prefix": True,
    "init_weights_seed": None,
    "leave_out": [],
    "non_linearity": "tanh",
    "shared_gating": True,
    "use_gating": False,
}
_CHANGES_RESULT = ("leave_out", "use_gating")


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is a prefix whose text begins at position 0."""
    return isinstance(config, PrefixTuningConfig) and config.stored_as == "adapterhub"


def read(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], names: ModelNames, *, ours: bool
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Return our config and the tensors by our names.

    Raises UnsupportedKindError where a setting changes the result, AdapterFileError for a tensor of another form.
    """
    values = config["config"]
    changed = [key for key in _CHANGES_RESULT if values.get(key)]
    if values.get("non_linearity", "tanh").lower() not in ACTIVATIONS and not values["flat"]:
        changed.append("non_linearity")
    if changed:
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind="prefix_tuning",
                settings=listing(f"{key}={values[key]!r}" for key in changed),
            )
        )
    method = PrefixTuningConfig(int(values["prefix_length"]), "RANDOM", shift_positions=False)
    paths = [names.in_model(path) for path in method.attentions(names.spec, names.model_type)]
    prefix = _flat(values, _own(tensors, str(config["name"])))
    assert names.spec is not None
    expected = method.num_virtual_tokens * len(paths) * 2 * names.spec.key_value_size
    if prefix.numel() != expected:
        raise AdapterFileError(
            say(
                "tensor {name} has the shape {got}, this base needs {expected}",
                name="control_trans",
                got=tuple(prefix.shape),
                expected=(expected,),
            )
        )
    pieces = prefix.reshape(method.num_virtual_tokens, -1).chunk(2 * len(paths), dim=1)
    return method, dict(zip((f"{path}.{part}" for path in paths for part in _PARTS), pieces, strict=True))


def write(
    adapter: StoredAdapter, adapter_name: str, names: ModelNames
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the method's part of an adapter_config.json and the tensors by AdapterHub's names, in the flat form."""
    config = adapter.config
    assert isinstance(config, PrefixTuningConfig)
    paths = [names.in_model(path) for path in config.attentions(names.spec, names.model_type)]
    flat = torch.cat([adapter.tensors[f"{path}.{part}"] for path in paths for part in _PARTS], dim=1).flatten()
    name = f"prefix_tunings.{adapter_name}.{_PLACE}.control_trans"
    owners = [*(f"{path}.prefix_tuning.pool" for path in paths), f"{names.prefix}.prefix_tuning".lstrip(".")]
    return {**_FIXED, "flat": True, "prefix_length": config.num_virtual_tokens}, {
        f"{owner}.{name}": flat for owner in owners
    }


def _own(tensors: Mapping[str, torch.Tensor], adapter_name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the adapter by the names inside its place, those of the layers left out."""
    own = {}
    for key, tensor in tensors.items():
        _, found, inside = key.partition(f"prefix_tuning.prefix_tunings.{adapter_name}.{_PLACE}.")
        _, repeated, _ = key.partition(f"prefix_tuning.pool.prefix_tunings.{adapter_name}.{_PLACE}.")
        if found:
            own[inside] = tensor
        elif not repeated:
            raise AdapterFileError(say("the adapter holds a tensor {name!r} that has no place in this base", name=key))
    return own


def _flat(values: Mapping[str, Any], own: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return keys and values (prefix length * layers * 2 * size) or in a form of as many numbers."""
    expected = {"control_trans"} if values["flat"] else {"wte.weight", *_NETWORK}
    if set(own) != expected:
        raise AdapterFileError(
            say(
                "the adapter's tensors do not fit this base: missing {missing}; left over {left_over}",
                missing=listing(sorted(expected - set(own))),
                left_over=listing(sorted(set(own) - expected)),
            )
        )
    if values["flat"]:
        return own["control_trans"]
    inner = F.linear(own["wte.weight"], own["control_trans.0.weight"], own["control_trans.0.bias"])
    inner = ACTIVATIONS[values.get("non_linearity", "tanh").lower()](inner)
    return F.linear(inner, own["control_trans.2.weight"], own["control_trans.2.bias"])


_NETWORK = tuple(f"control_trans.{layer}.{name}" for layer in (0, 2) for name in ("weight", "bias"))
