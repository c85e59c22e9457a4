"""PEFT's adapter folders (peft 0.21.2): LoRA and prompt tuning.

Key rules: peft/utils/save_and_load.py. A LoRA tensor is `base_model.model.<path>.lora_A.weight`; a head tensor the same
without the LoRA part, but `base_model.<path>` with a soft prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunedeck.core.errors import AdapterFileError, TargetError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.patterns import fullmatch
from tunedeck.core.storage import write_json
from tunedeck.formats.tensors import ModelNames, StoredAdapter, read_safetensors, write_safetensors
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig
from tunedeck.methods.targets import select_targets

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KINDS = {"LORA": "lora", "PROMPT_TUNING": "prompt_tuning"}

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
_READ = {
    "LORA": {
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "layers_to_transform",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "bias",
        "init_lora_weights",
    },
    "PROMPT_TUNING": {
        "num_virtual_tokens",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "num_transformer_submodules",
    },
}
_NUMBERED = re.compile(r"^.*?\.\d+\.")
"""Prefix of a module's path within its layer."""
# These initialisations change the base's weights as well, so the adapter alone is not the model that was trained.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read(folder: Path, config: Mapping[str, Any], names: ModelNames) -> StoredAdapter:
    """Read a PEFT folder whose adapter_config.json is `config`.

    Raises UnsupportedKindError for another kind or a setting that would change the result, AdapterFileError for files
    that are missing or damaged.
    """
    peft_type = str(config["peft_type"])
    _refuse_unsupported(peft_type, config)
    tensors = _read_weights(folder)
    if peft_type == "LORA":
        body, head = _split_lora(tensors, names)
        method: MethodConfig = _lora_config(config, body)
    else:
        body, head = _split_prompt(tensors)
        method = PromptTuningConfig(num_virtual_tokens=int(config["num_virtual_tokens"]))
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
    config = adapter.config
    if isinstance(config, LoraConfig):
        bare = f"{names.prefix}." if peft_task == "FEATURE_EXTRACTION" else ""
        own = {name.removeprefix(bare): tensor for name, tensor in adapter.tensors.items()}
        specific = _lora_settings(_without_prefix(config, bare), own, names)
        tensors = {f"base_model.model.{name}.weight": tensor for name, tensor in own.items()}
        start = "base_model.model."
    else:
        assert isinstance(config, PromptTuningConfig)
        prompt = adapter.tensors["prompt.prompt_embeddings"]
        specific = _prompt_settings(config, prompt, names)
        tensors = {"prompt_embeddings": prompt}
        start = "base_model."
    tensors |= {f"{start}{name}": t for name, t in adapter.head.items()}
    write_json(folder / CONFIG, dict(sorted({**common, **specific}.items())))
    write_safetensors(folder / WEIGHTS, tensors)


def _without_prefix(config: LoraConfig, prefix: str) -> LoraConfig:
    """Return the config with paths as the model without a head has them."""
    if not prefix:
        return config
    targets = config.target_modules
    return replace(
        config,
        target_modules=tuple(path.removeprefix(prefix) for path in targets) if isinstance(targets, tuple) else targets,
        rank_pattern={path.removeprefix(prefix): rank for path, rank in config.rank_pattern.items()},
        alpha_pattern={path.removeprefix(prefix): alpha for path, alpha in config.alpha_pattern.items()},
    )


def _refuse_unsupported(peft_type: str, config: Mapping[str, Any]) -> None:
    kind = "DORA" if config.get("use_dora") else peft_type
    if kind not in KINDS:
        raise UnsupportedKindError(
            say("the PEFT kind {kind} is not supported (supported: {known})", kind=kind, known=listing(KINDS))
        )
    plain = config.get("bias", "none") == "none" and config.get("num_transformer_submodules", 1) in (None, 1)
    init = str(config.get("init_lora_weights", ""))
    extra = [k for k, v in config.items() if v and k not in _HARMLESS | _READ[peft_type]]
    if not plain or extra or init.lower().startswith(_BASE_CHANGING_INITS):
        extra = extra or [k for k in ("bias", "init_lora_weights", "num_transformer_submodules") if k in config]
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind=peft_type,
                settings=listing(f"{key}={config[key]!r}" for key in extra),
            )
        )


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
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


def _split_lora(
    tensors: Mapping[str, torch.Tensor], names: ModelNames
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    body, head = {}, {}
    for key, tensor in tensors.items():
        path = key.removeprefix("base_model.model.")
        if match := re.fullmatch(r"(.+)\.(lora_[AB])\.weight", path):
            body[f"{names.in_model(match.group(1))}.{match.group(2)}"] = tensor
        else:
            head[path] = tensor
    return body, head


def _split_prompt(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    head = {k.removeprefix("base_model."): t for k, t in tensors.items() if k != "prompt_embeddings"}
    prompt = tensors.get("prompt_embeddings")
    return ({} if prompt is None else {"prompt.prompt_embeddings": prompt}), head


def _lora_config(config: Mapping[str, Any], body: Mapping[str, torch.Tensor]) -> LoraConfig:
    paths = {name.rpartition(".")[0] for name in body}
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if isinstance(targets, list):
        targets = list(dict.fromkeys(targets))
    strays = sorted(path for path in paths if targets and not _may_mean(targets, path))
    if strays:
        raise AdapterFileError(
            say(
                "the adapter holds tensors for {modules}, which its target_modules {targets} do not name",
                modules=listing(strays[:3]),
                targets=targets,
            )
        )
    if (
        not targets
        or config.get("exclude_modules")
        or config.get("layers_pattern")
        or not all(_NUMBERED.search(path) for path in paths)
        or not _selects(targets, layers, paths)
    ):
        # The tensors say which modules are meant; naming each by its path keeps what the file's patterns chose.
        targets, layers = sorted(paths), None
    chosen = targets if isinstance(targets, str) else tuple(sorted(targets))
    return LoraConfig(
        r=int(config.get("r", 8)),
        lora_alpha=float(config.get("lora_alpha", 8)),
        lora_dropout=float(config.get("lora_dropout", 0.0)),
        target_modules=chosen,
        layers_to_transform=None if layers is None else tuple([layers] if isinstance(layers, int) else layers),
        use_rslora=bool(config.get("use_rslora", False)),
        rank_pattern=dict(config.get("rank_pattern") or {}),
        alpha_pattern=dict(config.get("alpha_pattern") or {}),
    )


def _may_mean(targets: str | list[str], path: str) -> bool:
    """Tell whether target_modules can name a path by PEFT's rules; the file may leave out the base's first parts."""
    parts = path.split(".")
    shorter = [".".join(parts[start:]) for start in range(len(parts))]
    if isinstance(targets, str):
        return targets == "all-linear" or any(fullmatch(targets, name) for name in shorter)
    return any(name in targets for name in shorter)


def _selects(targets: str | list[str], layers: list[int] | int | None, paths: set[str]) -> bool:
    """Tell whether the file's own target_modules name exactly the modules that have tensors, by our stricter rules."""
    try:
        wanted = None if layers is None else tuple([layers] if isinstance(layers, int) else layers)
        chosen = targets if isinstance(targets, str) else tuple(targets)
        return set(select_targets(chosen, sorted(paths), layers_to_transform=wanted)) == paths
    except TargetError:
        return False


def _targets(config: LoraConfig, tensors: Mapping[str, torch.Tensor], names: ModelNames) -> str | list[str]:
    """`target_modules` by PEFT's rules, which search the whole model: a short name there might reach a pooler or a
    head.
    """
    targets = config.target_modules
    in_layer = {name.rpartition(".")[0]: _NUMBERED.sub("", name.rpartition(".")[0]) for name in tensors}
    if targets is None or targets == "all-linear":
        return sorted(set(in_layer.values()))
    if isinstance(targets, str):
        return targets
    chosen: list[str] = []
    for target in targets:
        too_short = any(f".{path}".endswith(f".{target}") for path in names.linears_outside_layers)
        longer = {short for path, short in in_layer.items() if f".{path}".endswith(f".{target}")}
        chosen += sorted(longer) if too_short else [target]
    return chosen


def _lora_settings(config: LoraConfig, tensors: Mapping[str, torch.Tensor], names: ModelNames) -> dict[str, Any]:
    return {
        "alpha_pattern": dict(config.alpha_pattern),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None if config.layers_to_transform is None else list(config.layers_to_transform),
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "peft_type": "LORA",
        "r": config.r,
        "rank_pattern": dict(config.rank_pattern),
        "target_modules": _targets(config, tensors, names),
        "use_dora": False,
        "use_rslora": config.use_rslora,
    }


def _prompt_settings(config: PromptTuningConfig, prompt: torch.Tensor, names: ModelNames) -> dict[str, Any]:
    return {
        "num_attention_heads": names.num_attention_heads,
        "num_layers": names.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": config.num_virtual_tokens,
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "token_dim": prompt.shape[1],
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
    }
