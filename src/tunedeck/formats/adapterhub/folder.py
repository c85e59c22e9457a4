"""AdapterHub's folders (adapters 1.3.0): bottleneck adapters, LoRA, (IA)³ and prefixes, with a static head, a
two-layer classification head or a tagging head.

The .bin files are read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import write_json
from tunedeck.formats.adapterhub import bottleneck, ia3, lora, prefix_tuning
from tunedeck.formats.files import open_regular
from tunedeck.formats.manifest import FILE
from tunedeck.formats.tensors import ModelNames, StoredAdapter, read_json, read_safetensors, torch_bytes, write_bin
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.bottleneck.config import KINDS

CONFIG, HEAD_CONFIG = "adapter_config.json", "head_config.json"
VERSION = "adapters.1.3.0"

# A flex head is linear, tanh, linear on the first token: the modules that compute the same in transformers' classes.
_FLEX_HEADS = {
    "bert": {"1": "bert.pooler.dense", "4": "classifier"},
    "roberta": {"1": "classifier.dense", "4": "classifier.out_proj"},
    "xlm-roberta": {"1": "classifier.dense", "4": "classifier.out_proj"},
}


class HubKind(Protocol):
    """How AdapterHub stores one kind of adapter: the functions of a module."""

    def holds(self, config: MethodConfig) -> bool:
        """Tell whether adapters with this config are stored as this kind."""
        ...

    def read(
        self, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], names: ModelNames, *, ours: bool
    ) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
        """Return our config and the tensors by our names; `ours` says that this library wrote the file."""
        ...

    def write(
        self, adapter: StoredAdapter, adapter_name: str, names: ModelNames
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the method's part of an adapter_config.json and the tensors by AdapterHub's names."""
        ...


_KINDS: tuple[HubKind, ...] = (bottleneck, lora, ia3, prefix_tuning)


def holds(config: MethodConfig) -> bool:
    """Tell whether AdapterHub has a kind for an adapter."""
    return any(kind.holds(config) for kind in _KINDS)


def read(folder: Path, config: Mapping[str, Any], names: ModelNames) -> StoredAdapter:
    """Read an AdapterHub folder whose adapter_config.json is `config`.

    Raises UnsupportedKindError for another kind, AdapterFileError for files that are missing, damaged or do not fit.
    """
    kind, file = _kind(config), folder / "pytorch_adapter.bin"
    tensors = _load(file if file.exists() else folder / "adapter.safetensors")
    method, body = kind.read(config, tensors, names, ours=(folder / FILE).exists())
    head, labels = _read_head(folder, names)
    return StoredAdapter(method, body, head, labels, config.get("model_name") or None, None)


def write(folder: Path, adapter: StoredAdapter, names: ModelNames, adapter_name: str) -> None:
    """Write the config, pytorch_adapter.bin and, where there is a head, head_config.json and pytorch_model_head.bin.

    Raises UnsupportedKindError for an adapter that AdapterHub cannot hold.
    """
    values, tensors = next(kind for kind in _KINDS if kind.holds(adapter.config)).write(adapter, adapter_name, names)
    assert names.spec is not None
    common = {
        "hidden_size": names.spec.hidden_size,
        "model_class": names.model_class,
        "model_name": adapter.base_reference or "",
        "model_type": names.model_type,
        "version": VERSION,
    }
    _write_sorted(folder / CONFIG, {**common, "config": values, "name": adapter_name})
    write_bin(folder / "pytorch_adapter.bin", tensors)
    if adapter.head:
        labels = adapter.labels or ()
        label2id = {label: index for index, label in enumerate(labels)}
        head = {"config": None, "label2id": label2id, "name": None, "num_labels": len(labels)}
        _write_sorted(folder / HEAD_CONFIG, {**common, **head})
        write_bin(folder / "pytorch_model_head.bin", adapter.head)


def _kind(config: Mapping[str, Any]) -> HubKind:
    values = config["config"]
    kind = values.get("architecture") if isinstance(values, Mapping) else None
    if kind == "prompt_tuning":
        raise UnsupportedKindError(prompt_refusal())
    if kind == "prefix_tuning":
        return prefix_tuning
    if kind == "lora":
        return ia3 if values.get("composition_mode") == "scale" else lora
    if kind is not None:
        raise UnsupportedKindError(
            say(
                "the AdapterHub kind {kind} is not supported (supported: {known})",
                kind=kind,
                known=listing(("lora", "prefix_tuning", *KINDS)),
            )
        )
    return bottleneck


def prompt_refusal() -> str:
    """Return why prompt tuning does not go between AdapterHub and the others."""
    return say(
        "AdapterHub's prompt tuning is another method: its virtual tokens come after the embedding layer's "
        "position and "
        "norm, and the text's positions begin at 0 after them, so neither form can be turned into the other; "
        "prompt tuning is kept as PEFT's folder: --to peft"
    )


def _load(file: Path) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise AdapterFileError(
            say("{path} has no {file}; the adapter is incomplete", path=file.parent, file="pytorch_adapter.bin")
        )
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    torch_bytes(file)
    try:
        with open_regular(file) as opened:
            tensors = torch.load(opened, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AdapterFileError(
            say("{path} is damaged, cut short or holds more than tensors: {reason}", path=file, reason=reason)
        ) from error
    if not isinstance(tensors, dict) or not all(_is_plain(value) for value in tensors.values()):
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason="not a table of tensors"))
    return cast(dict[str, torch.Tensor], tensors)


def _is_plain(value: object) -> bool:
    """Tell whether it is a tensor with all its values in memory: a pickle may repeat one value a million times."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


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
    modules = _flex_modules(flex, names)
    if not modules:
        raise UnsupportedKindError(
            say("this AdapterHub head is not supported: {head} on {model_type}", head=flex, model_type=names.model_type)
        )
    renamed = {}
    for key, tensor in tensors.items():
        _, _, index, parameter = key.split(".")
        renamed[f"{modules[index]}.{parameter}"] = tensor
    return renamed, labels


def _flex_modules(flex: Mapping[str, Any], names: ModelNames) -> Mapping[str, str]:
    """Return the modules of the model that compute what a flex head does, by their place in it; none where it has none.

    A tagging head of one layer is the linear on every token of transformers' classes, and so is static there:
    adapters/head_utils.py.
    """
    by_token = names.model_class.endswith("ForTokenClassification")
    if (flex.get("head_type"), flex.get("layers")) == ("tagging", 1) and by_token:
        return {"1": "score" if "score" in names.linears_outside_layers else "classifier"}
    plain = (flex.get("head_type"), flex.get("layers"), flex.get("activation_function"), flex.get("use_pooler"))
    return _FLEX_HEADS.get(names.model_type, {}) if plain == ("classification", 2, "tanh", False) else {}


def _write_sorted(file: Path, value: Mapping[str, Any]) -> None:
    """As AdapterHub writes: keys sorted at every level."""
    write_json(file, {k: dict(sorted(v.items())) if isinstance(v, Mapping) else v for k, v in sorted(value.items())})
