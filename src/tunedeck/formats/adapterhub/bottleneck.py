"""Bottleneck adapters in AdapterHub's form: `<prefix>.<layers>.<i>.<site>.<adapter>.adapter_down.0.weight`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.formats.tensors import ModelNames, StoredAdapter
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.bottleneck.config import BottleneckConfig

# BnConfig's fields that we do not vary, and the only value they may have in a file we read.
_FIXED: dict[str, Any] = {
    "adapter_residual_before_ln": False,
    "cross_adapter": False,
    "factorized_phm_W": True,
    "factorized_phm_rule": False,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "init_weights_seed": None,
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "learn_phm": True,
    "ln_after": False,
    "ln_before": False,
    "original_ln_after": True,
    "phm_bias": True,
    "phm_c_init": "normal",
    "phm_dim": 4,
    "phm_init_range": 0.0001,
    "phm_layer": False,
    "phm_rank": 1,
    "residual_before_ln": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "stochastic_depth": 0.0,
    "use_gating": False,
}
_CHANGES_RESULT = (
    "adapter_residual_before_ln",
    "cross_adapter",
    "inv_adapter",
    "ln_after",
    "ln_before",
    "original_ln_after",
    "phm_layer",
    "residual_before_ln",
    "use_gating",
)
_VARIED = (
    "mh_adapter",
    "output_adapter",
    "reduction_factor",
    "non_linearity",
    "scaling",
    "leave_out",
    "dropout",
    "original_ln_before",
    "is_parallel",
    "init_weights",
)
_PARAMETERS = {"adapter_down.0.": "down.", "adapter_up.": "up.", "scaling": "scaling"}
_LEGACY = re.compile(r"\b(attention|layer)_text_(task|lang)_adapters\b")


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is a bottleneck adapter."""
    return isinstance(config, BottleneckConfig)


def read(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], names: ModelNames, *, ours: bool
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Return our config and the tensors by our names; `ours` says that this library wrote the file.

    Raises UnsupportedKindError for a setting that changes the result, AdapterFileError for a tensor of another form.
    """
    method, body = _read_config(config, names, ours=ours), {}
    for key, tensor in tensors.items():
        name = _our_name(key, str(config["name"]), names)
        if name is None:
            raise AdapterFileError(say("the adapter holds a tensor {name!r} that has no place in this base", name=key))
        body[name] = tensor
    return method, body


def write(
    adapter: StoredAdapter, adapter_name: str, names: ModelNames
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the method's part of an adapter_config.json and the tensors by AdapterHub's names."""
    config = adapter.config
    assert isinstance(config, BottleneckConfig)
    return _settings(config), {_hub_name(n, adapter_name, names): t for n, t in adapter.tensors.items()}


def _read_config(config: Mapping[str, Any], names: ModelNames, *, ours: bool) -> BottleneckConfig:
    if names.spec is None or names.spec.attention is None:
        raise UnsupportedKindError(
            say("bottleneck adapters are not supported on {model_type} models; use lora", model_type=names.model_type)
        )
    values = config["config"]
    if isinstance(values, str):
        return BottleneckConfig(name=values)
    changed = [k for k in _CHANGES_RESULT if k in values and values[k] != _FIXED[k]]
    if values.get("original_ln_before") and names.model_type.startswith(("gemma2", "gemma3")) and not ours:
        changed.append("original_ln_before")  # there AdapterHub normalises with the last layer's norm in every layer
    if changed:
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind="bottleneck",
                settings=listing(f"{key}={values[key]!r}" for key in changed),
            )
        )
    own = {key: values[key] for key in _VARIED if key in values}
    own.setdefault("original_ln_before", False)  # BnConfig's default, not seq_bn's
    own.setdefault("init_weights", "bert")
    if "version" not in config and own.get("non_linearity") == "gelu":
        own["non_linearity"] = "gelu_new"
    own["leave_out"] = tuple(own.get("leave_out") or ())
    kind = "par_bn" if own.get("is_parallel") else "seq_bn" if own["original_ln_before"] else "double_seq_bn"
    return BottleneckConfig(name=kind, **own)


def _settings(config: BottleneckConfig) -> dict[str, Any]:
    values = {**_FIXED, **{key: getattr(config, key) for key in _VARIED}}
    values["leave_out"] = list(config.leave_out)
    factor = config.reduction_factor
    if isinstance(factor, float) and factor.is_integer():
        values["reduction_factor"] = int(factor)
    return values


def _our_name(key: str, adapter_name: str, names: ModelNames) -> str | None:
    """Return our name of the tensor that AdapterHub calls `key`, None where it belongs to no bottleneck adapter."""
    spec = names.spec
    assert spec is not None
    path = _LEGACY.sub("adapters", key).removeprefix(f"{spec.prefix}.")
    for block, sites in (("attention", spec.attention), ("ffn", spec.ffn)):
        assert sites is not None
        pattern = rf"{re.escape(spec.layers)}\.(\d+)\.{re.escape(sites.adapterhub)}\.{re.escape(adapter_name)}\.(.+)"
        if match := re.fullmatch(pattern, path):
            for theirs, ours in _PARAMETERS.items():
                if match.group(2).startswith(theirs):
                    return f"{match.group(1)}.{block}.{ours}{match.group(2).removeprefix(theirs)}"
    return None


def _hub_name(name: str, adapter_name: str, names: ModelNames) -> str:
    """Return AdapterHub's name of one of our tensors."""
    spec = names.spec
    assert spec is not None
    layer, block, parameter = name.split(".", 2)
    sites = spec.attention if block == "attention" else spec.ffn
    assert sites is not None
    theirs = next(t + parameter.removeprefix(o) for t, o in _PARAMETERS.items() if parameter.startswith(o))
    start = f"{names.prefix}." if names.prefix else ""
    return f"{start}{spec.layers}.{layer}.{sites.adapterhub}.{adapter_name}.{theirs}"
