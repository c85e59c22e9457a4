"""PEFT's folder: adapter_config.json and adapter_model.safetensors. Key rules: peft/utils/save_and_load.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import write_json
from tunedeck.formats.peft import ia3, ln_tuning, lora, prefix_tuning, prompt_tuning
from tunedeck.formats.tensors import ModelNames, StoredAdapter, read_safetensors, write_safetensors
from tunedeck.methods.base import MethodConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]

# Settings that do not change what a trained adapter computes.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
    "modules_to_save",
    "fan_in_fan_out",
    "megatron_core",
    "qalora_group_size",
    "ensure_weight_tying",
    "runtime_config",
    "num_attention_heads",
    "num_layers",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
    "exclude_modules",
    "layers_pattern",
    "eva_config",
    "lora_ga_config",
    "velora_config",
}
# These initialisations change the base's weights as well, so the adapter alone is not the model that was trained.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


class PeftKind(Protocol):
    """How PEFT stores one kind of adapter: the constants and functions of a module."""

    READ: frozenset[str]
    """The settings that `read` takes into account."""
    HEAD: str
    """The prefix of the names of a head's tensors."""

    def holds(self, config: MethodConfig) -> bool:
        """Tell whether adapters with this config are stored as this kind."""
        ...

    def read(self, config: Mapping[str, Any], tensors: Tensors, names: ModelNames) -> tuple[MethodConfig, Tensors]:
        """Return our config and the adapter's tensors by our names; `tensors` has only those of the head left then."""
        ...

    def write(
        self, config: MethodConfig, tensors: Tensors, names: ModelNames, bare: str
    ) -> tuple[dict[str, Any], Tensors]:
        """Return the settings and the tensors by PEFT's names; `bare` is the prefix that the model loaded lacks."""
        ...


KINDS: Mapping[str, PeftKind] = {
    "LORA": lora,
    "IA3": ia3,
    "LN_TUNING": ln_tuning,
    "PROMPT_TUNING": prompt_tuning,
    "PREFIX_TUNING": prefix_tuning,
}


def holds(config: MethodConfig) -> bool:
    """Tell whether PEFT has a kind for an adapter."""
    return any(kind.holds(config) for kind in KINDS.values())


def read(folder: Path, config: Mapping[str, Any], names: ModelNames) -> StoredAdapter:
    """Read a PEFT folder whose adapter_config.json is `config`.

    Raises UnsupportedKindError for another kind or a setting that would change the result, AdapterFileError for files
    that are missing or damaged.
    """
    peft_type = str(config["peft_type"])
    _refuse_unsupported(peft_type, config)
    kind, tensors = KINDS[peft_type], _read_weights(folder)
    method, body = kind.read(config, tensors, names)
    head = {key.removeprefix(kind.HEAD): tensor for key, tensor in tensors.items()}
    return StoredAdapter(method, body, head, None, config.get("base_model_name_or_path"), None)


def write(folder: Path, adapter: StoredAdapter, names: ModelNames, peft_task: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT does."""
    modules = sorted({names.head_module(name) for name in adapter.head})
    common = {
        "auto_mapping": None,
        "base_model_name_or_path": adapter.base_reference,
        "inference_mode": True,
        "modules_to_save": modules or None,
        "peft_version": "0.21.2",
        "revision": None,
        "task_type": peft_task,
    }
    peft_type, kind = next((name, kind) for name, kind in KINDS.items() if kind.holds(adapter.config))
    bare = f"{names.prefix}." if peft_task == "FEATURE_EXTRACTION" else ""
    specific, tensors = kind.write(adapter.config, adapter.tensors, names, bare)
    tensors |= {f"{kind.HEAD}{name}": tensor for name, tensor in adapter.head.items()}
    write_json(folder / CONFIG, dict(sorted({**common, **specific, "peft_type": peft_type}.items())))
    write_safetensors(folder / WEIGHTS, tensors)


def _refuse_unsupported(peft_type: str, config: Mapping[str, Any]) -> None:
    if peft_type not in KINDS:
        raise UnsupportedKindError(
            say("the PEFT kind {kind} is not supported (supported: {known})", kind=peft_type, known=listing(KINDS))
        )
    plain = config.get("bias", "none") == "none" and config.get("num_transformer_submodules", 1) in (None, 1)
    init = str(config.get("init_lora_weights", ""))
    extra = [k for k, v in config.items() if v and k not in _HARMLESS | KINDS[peft_type].READ]
    if not plain or extra or init.lower().startswith(_BASE_CHANGING_INITS):
        extra = extra or [k for k in ("bias", "init_lora_weights", "num_transformer_submodules") if k in config]
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind=peft_type,
                settings=listing(f"{key}={config[key]!r}" for key in extra),
            )
        )


def _read_weights(folder: Path) -> Tensors:
    if (folder / WEIGHTS).exists():
        return read_safetensors(folder / WEIGHTS)
    if (folder / "adapter_model.bin").exists():
        raise AdapterFileError(
            say(
                "{path} is a pickle, not safetensors, and is not opened: it could run code; save it as safetensors",
                path=folder / "adapter_model.bin",
            )
        )
    raise AdapterFileError(say("{path} has no {file}; the adapter is incomplete", path=folder, file=WEIGHTS))
