"""AdapterHub's folders (adapters 1.3.0): bottleneck adapters, with a static or a two-layer classification head.

Keys: `<prefix>.<layers>.<i>.<site>.<adapter>.adapter_down.0.weight`. The .bin files are read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.messages import listing, say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.storage import write_json
from tunedeck.formats.manifest import FILE
from tunedeck.formats.stored import ModelNames, StoredAdapter, read_json, read_safetensors, write_bin
from tunedeck.methods.bottleneck.config import KINDS, BottleneckConfig

CONFIG, HEAD_CONFIG = "adapter_config.json", "head_config.json"
VERSION = "adapters.1.3.0"

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
    "adapter_residual_before_ln", "cross_adapter", "inv_adapter", "ln_after", "ln_before", "original_ln_after",
    "phm_layer", "residual_before_ln", "use_gating",
)  # fmt: skip
_VARIED = ("mh_adapter", "output_adapter", "reduction_factor", "non_linearity", "scaling", "leave_out", "dropout",
           "original_ln_before", "is_parallel", "init_weights")  # fmt: skip
_PARAMETERS = {"adapter_down.0.": "down.", "adapter_up.": "up.", "scaling": "scaling"}
_LEGACY = re.compile(r"\b(attention|layer)_text_(task|lang)_adapters\b")
# A flex head is linear, tanh, linear on the first token: the modules that compute the same in transformers' classes.
_FLEX_HEADS = {
    "bert": {"1": "bert.pooler.dense", "4": "classifier"},
    "roberta": {"1": "classifier.dense", "4": "classifier.out_proj"},
    "xlm-roberta": {"1": "classifier.dense", "4": "classifier.out_proj"},
}


def read(folder: Path, config: Mapping[str, Any], names: ModelNames) -> StoredAdapter:
    """Read an AdapterHub folder whose adapter_config.json is `config`.

    Raises UnsupportedKindError for another kind, AdapterFileError for files that are missing, damaged or do not fit.
    """
    method = _method(config, names, ours=(folder / FILE).exists())
    spec = names.spec
    if spec is None or spec.attention is None:
        raise UnsupportedKindError(
            say("bottleneck adapters are not supported on {model_type} models; use lora", model_type=names.model_type)
        )
    file = folder / "pytorch_adapter.bin"
    tensors = _load(file if file.exists() else folder / "adapter.safetensors")
    body = {_our_name(key, str(config["name"]), spec): tensor for key, tensor in tensors.items()}
    head, labels = _read_head(folder, names)
    return StoredAdapter(method, body, head, labels, config.get("model_name") or None, None)


def write(folder: Path, adapter: StoredAdapter, names: ModelNames, adapter_name: str) -> None:
    """Write the config, pytorch_adapter.bin and, where there is a head, head_config.json and pytorch_model_head.bin."""
    config = adapter.config
    assert isinstance(config, BottleneckConfig)
    assert names.spec is not None
    common = {
        "hidden_size": names.spec.hidden_size,
        "model_class": names.model_class,
        "model_name": adapter.base_reference or "",
        "model_type": names.model_type,
        "version": VERSION,
    }
    values = {**_FIXED, **{key: getattr(config, key) for key in _VARIED}}
    values["leave_out"] = list(config.leave_out)
    factor = config.reduction_factor
    if isinstance(factor, float) and factor.is_integer():
        values["reduction_factor"] = int(factor)
    _write_sorted(folder / CONFIG, {**common, "config": values, "name": adapter_name})
    tensors = {_hub_name(name, adapter_name, names): t for name, t in adapter.tensors.items()}
    write_bin(folder / "pytorch_adapter.bin", tensors)
    if adapter.head:
        labels = adapter.labels or ()
        label2id = {label: index for index, label in enumerate(labels)}
        head = {"config": None, "label2id": label2id, "name": None, "num_labels": len(labels)}
        _write_sorted(folder / HEAD_CONFIG, {**common, **head})
        write_bin(folder / "pytorch_model_head.bin", adapter.head)


def _method(config: Mapping[str, Any], names: ModelNames, *, ours: bool) -> BottleneckConfig:
    values = config["config"]
    if isinstance(values, str):
        return BottleneckConfig(name=values)
    if values.get("architecture") is not None:
        raise UnsupportedKindError(
            say(
                "the AdapterHub kind {kind} is not supported (supported: {known})",
                kind=values["architecture"],
                known=listing(KINDS),
            )
        )
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


def _load(file: Path) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise AdapterFileError(
            say("{path} has no {file}; the adapter is incomplete", path=file.parent, file="pytorch_adapter.bin")
        )
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AdapterFileError(
            say("{path} is damaged, cut short or holds more than tensors: {reason}", path=file, reason=reason)
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason="not a table of tensors"))
    return cast(dict[str, torch.Tensor], tensors)


def _our_name(key: str, adapter_name: str, spec: ModelSpec) -> str:
    path = _LEGACY.sub("adapters", key).removeprefix(f"{spec.prefix}.")
    for block, sites in (("attention", spec.attention), ("ffn", spec.ffn)):
        assert sites is not None
        pattern = rf"{re.escape(spec.layers)}\.(\d+)\.{re.escape(sites.adapterhub)}\.{re.escape(adapter_name)}\.(.+)"
        if match := re.fullmatch(pattern, path):
            for theirs, ours in _PARAMETERS.items():
                if match.group(2).startswith(theirs):
                    return f"{match.group(1)}.{block}.{ours}{match.group(2).removeprefix(theirs)}"
    raise AdapterFileError(say("the adapter holds a tensor {name!r} that has no place in this base", name=key))


def _hub_name(name: str, adapter_name: str, names: ModelNames) -> str:
    spec = names.spec
    assert spec is not None
    layer, block, parameter = name.split(".", 2)
    sites = spec.attention if block == "attention" else spec.ffn
    assert sites is not None
    theirs = next(t + parameter.removeprefix(o) for t, o in _PARAMETERS.items() if parameter.startswith(o))
    start = f"{names.prefix}." if names.prefix else ""
    return f"{start}{spec.layers}.{layer}.{sites.adapterhub}.{adapter_name}.{theirs}"


def _read_head(folder: Path, names: ModelNames) -> tuple[dict[str, torch.Tensor], tuple[str, ...] | None]:
    if not (folder / HEAD_CONFIG).exists():
        return {}, None
    config = read_json(folder / HEAD_CONFIG)
    file = folder / "pytorch_model_head.bin"
    tensors = _load(file if file.exists() else folder / "model_head.safetensors")
    flex = config.get("config")
    described = flex or config
    label2id = described.get("label2id") or {}
    labels = tuple(sorted(label2id, key=lambda label: cast(int, label2id[label]))) or None
    if flex is None:
        return tensors, labels
    modules = _FLEX_HEADS.get(names.model_type, {})
    plain = (flex.get("head_type"), flex.get("layers"), flex.get("activation_function"), flex.get("use_pooler"))
    if plain != ("classification", 2, "tanh", False) or not modules:
        raise UnsupportedKindError(
            say("this AdapterHub head is not supported: {head} on {model_type}", head=flex, model_type=names.model_type)
        )
    renamed = {}
    for key, tensor in tensors.items():
        _, _, index, parameter = key.split(".")
        renamed[f"{modules[index]}.{parameter}"] = tensor
    return renamed, labels


def _write_sorted(file: Path, value: Mapping[str, Any]) -> None:
    """As AdapterHub writes: keys sorted at every level."""
    write_json(file, {k: dict(sorted(v.items())) if isinstance(v, Mapping) else v for k, v in sorted(value.items())})
