"""LoRA in AdapterHub's form: `<prefix>.<layers>.<i>.<linear>.loras.<adapter>.lora_A`, one rank and one scale
everywhere.

It knows the linear layers of core/architectures.toml's `adapterhub_lora` alone, all or none of them in a layer. Scale:
alpha / r.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunedeck.core.errors import UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.formats.tensors import ModelNames, StoredAdapter
from tunedeck.methods.lora.config import LoraConfig

_ATTENTION = ("q", "k", "v")
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


def read_config(config: Mapping[str, Any], names: ModelNames) -> LoraConfig:
    """Return the settings in an adapter_config.json; UnsupportedKindError where one changes the result or the model has
    no place.
    """
    values = {"r": 8, "alpha": 8, "selfattn_lora": True, "attn_matrices": ["q", "v"], **config["config"]}
    changed = [key for key in _CHANGES_RESULT if values.get(key) not in (_FIXED[key], None)]
    if changed:
        raise UnsupportedKindError(
            say(
                "this {kind} adapter uses settings that are not supported: {settings}",
                kind="LoRA",
                settings=listing(f"{key}={values[key]!r}" for key in changed),
            )
        )
    spec = _spec(names)
    wanted = list(values["attn_matrices"]) if values["selfattn_lora"] else []
    wanted += [site for site in ("intermediate", "output") if values.get(f"{site}_lora")]
    fused = [site for site in wanted if site not in spec.adapterhub_lora]
    if fused:
        raise UnsupportedKindError(
            say(
                "AdapterHub's LoRA on {sites} of a {model_type} model is stored in a form that cannot be read here",
                sites=listing(fused),
                model_type=names.model_type,
            )
        )
    left_out = set(values.get("leave_out") or ())
    layers = tuple(layer for layer in range(spec.num_layers) if layer not in left_out)
    targets, by_path = _targets([spec.adapterhub_lora[site] for site in wanted], layers, names)
    old = _version(str(config.get("version", ""))) < _SCALED_BY_ALPHA
    return LoraConfig(
        r=int(values["r"]),
        lora_alpha=float(values["r"] if old else values["alpha"]),
        lora_dropout=float(values.get("dropout", 0.0)),
        target_modules=targets,
        layers_to_transform=layers if left_out and not by_path else None,
    )


def settings(adapter: StoredAdapter, names: ModelNames) -> dict[str, Any]:
    """Return the method's part of an adapter_config.json; UnsupportedKindError for a LoRA that AdapterHub cannot
    hold.
    """
    config = adapter.config
    assert isinstance(config, LoraConfig)
    spec = _spec(names)
    sites = {path: site for site, path in spec.adapterhub_lora.items()}
    found: dict[int, set[str]] = {}
    for path in _paths(adapter):
        layer, inside = _inside(path, names)
        if inside not in sites:
            raise _cannot(say("it has a patch at {path}", path=path), names, sites)
        found.setdefault(layer, set()).add(sites[inside])
    used = next(iter(found.values()))
    if any(layer != used for layer in found.values()):
        raise _cannot(say("its layers have patches at different places"), names, sites)
    ranks = {config.rank(path) for path in _paths(adapter)}
    scales = {config.scaling(path) for path in _paths(adapter)}
    if len(ranks) > 1 or len(scales) > 1:
        raise _cannot(say("its patches have different ranks or scales"), names, sites)
    (r,), (scale,) = ranks, scales
    alpha = config.lora_alpha if config.lora_alpha / r == scale else scale * r
    return {
        **_FIXED,
        "alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "attn_matrices": [site for site in _ATTENTION if site in used] or ["q", "v"],
        "dropout": config.lora_dropout,
        "intermediate_lora": "intermediate" in used,
        "leave_out": [layer for layer in range(spec.num_layers) if layer not in found],
        "output_lora": "output" in used,
        "r": r,
        "selfattn_lora": any(site in used for site in _ATTENTION),
    }


def our_name(key: str, adapter_name: str, names: ModelNames) -> str | None:
    """Return our name of the tensor that AdapterHub calls `key`, None where it belongs to no LoRA."""
    match = re.fullmatch(rf"(.+)\.loras\.{re.escape(adapter_name)}\.(lora_[AB])", key)
    return f"{names.in_model(match.group(1))}.{match.group(2)}" if match else None


def hub_name(name: str, adapter_name: str) -> str:
    """Return AdapterHub's name of one of our tensors."""
    path, _, parameter = name.rpartition(".")
    return f"{path}.loras.{adapter_name}.{parameter}"


def _spec(names: ModelNames) -> ModelSpec:
    if names.spec is None or not names.spec.adapterhub_lora:
        raise UnsupportedKindError(
            say(
                "AdapterHub has no LoRA for {model_type} models; keep the adapter as PEFT's folder: --to peft",
                model_type=names.model_type,
            )
        )
    return names.spec


def _targets(sites: list[str], layers: tuple[int, ...], names: ModelNames) -> tuple[tuple[str, ...], bool]:
    """`target_modules` that mean these places and no other, and whether they name each by its whole path."""
    spec = _spec(names)
    everywhere = [*(linear.path for linear in spec.linears), *names.linears_outside_layers]
    short = []
    for site in sites:
        place = re.compile(rf"\.\d+\.{re.escape(site)}$")
        for name in (site.rpartition(".")[2], site):
            if all(place.search(path) for path in everywhere if f".{path}".endswith(f".{name}")):
                short.append(name)
                break
    if len(short) == len(sites):
        return tuple(short), False
    start = f"{names.prefix}." if names.prefix else ""
    return tuple(f"{start}{spec.layers}.{layer}.{site}" for layer in layers for site in sites), True


def _inside(path: str, names: ModelNames) -> tuple[int, str]:
    """Return the layer of a linear and its path there; (-1, path) outside the layers."""
    spec = _spec(names)
    match = re.fullmatch(rf"(?:{re.escape(spec.prefix)}\.)?{re.escape(spec.layers)}\.(\d+)\.(.+)", path)
    return (int(match.group(1)), match.group(2)) if match else (-1, path)


def _paths(adapter: StoredAdapter) -> list[str]:
    return sorted({name.rpartition(".")[0] for name in adapter.tensors})


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers of `adapters.1.3.0`; a file without a version counts as new."""
    numbers = re.fullmatch(r"adapters\.(\d+)\.(\d+).*", text)
    return tuple(int(number) for number in numbers.groups()) if numbers else (99,)


def _cannot(reason: str, names: ModelNames, sites: Mapping[str, str]) -> UnsupportedKindError:
    return UnsupportedKindError(
        say(
            "AdapterHub cannot hold this LoRA: {reason}. On {model_type} models it has patches of one rank and "
            "one scale at "
            "{sites}, the same in every layer that has any; keep the adapter as PEFT's folder: --to peft",
            reason=reason,
            model_type=names.model_type,
            sites=listing(sites),
        )
    )
