"""Paths of AdapterHub's LoRA and (IA)³: `<prefix>.<layers>.<i>.<linear>.loras.<adapter>.<parameter>`.

It knows the linear layers of core/architectures.toml's `adapterhub_lora` alone, all or none of them in a layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.formats.tensors import ModelNames, StoredAdapter

_ATTENTION = ("q", "k", "v")


@dataclass(frozen=True, slots=True)
class Places:
    """The places that an adapter_config.json names, as `target_modules` and `layers_to_transform`, and one by one."""

    targets: tuple[str, ...]
    layers: tuple[int, ...] | None
    paths: tuple[str, ...]


def read_places(values: Mapping[str, Any], names: ModelNames) -> Places:
    """Read the method's part of an adapter_config.json; UnsupportedKindError where the model has no such place."""
    spec = _spec(names)
    wanted = list(values.get("attn_matrices", ("q", "v"))) if values.get("selfattn_lora", True) else []
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
    sites = [spec.adapterhub_lora[site] for site in wanted]
    start = f"{names.prefix}." if names.prefix else ""
    paths = tuple(f"{start}{spec.layers}.{layer}.{site}" for layer in layers for site in sites)
    short = _short_names(sites, names)
    if short is None:
        return Places(paths, None, paths)
    return Places(short, layers if left_out else None, paths)


def write_places(adapter: StoredAdapter, names: ModelNames) -> dict[str, Any]:
    """Return the settings that say where an adapter is; UnsupportedKindError where AdapterHub has no such place."""
    spec = _spec(names)
    sites = {path: site for site, path in spec.adapterhub_lora.items()}
    found: dict[int, set[str]] = {}
    for path in paths_of(adapter):
        layer, inside = _inside(path, spec)
        if inside not in sites:
            raise cannot_hold(say("it has a patch at {path}", path=path), names)
        found.setdefault(layer, set()).add(sites[inside])
    used = next(iter(found.values()))
    if any(layer != used for layer in found.values()):
        raise cannot_hold(say("its layers have patches at different places"), names)
    return {
        "attn_matrices": [site for site in _ATTENTION if site in used] or ["q", "v"],
        "intermediate_lora": "intermediate" in used,
        "leave_out": [layer for layer in range(spec.num_layers) if layer not in found],
        "output_lora": "output" in used,
        "selfattn_lora": any(site in used for site in _ATTENTION),
    }


def read_tensors(
    tensors: Mapping[str, torch.Tensor], adapter_name: str, names: ModelNames, ours: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Return tensors by our names, `ours` by AdapterHub's parameters; AdapterFileError for a key of another form."""
    key_of = re.compile(rf"(.+)\.loras\.{re.escape(adapter_name)}\.({'|'.join(ours)})")
    body = {}
    for key, tensor in tensors.items():
        match = key_of.fullmatch(key)
        if match is None:
            raise AdapterFileError(say("the adapter holds a tensor {name!r} that has no place in this base", name=key))
        body[f"{names.in_model(match.group(1))}.{ours[match.group(2)]}"] = tensor
    return body


def hub_name(name: str, adapter_name: str, theirs: str) -> str:
    """Return AdapterHub's name of one of our tensors, whose parameter is called `theirs` there."""
    return f"{name.rpartition('.')[0]}.loras.{adapter_name}.{theirs}"


def paths_of(adapter: StoredAdapter) -> list[str]:
    """Return the paths of the linear layers that an adapter has tensors for."""
    return sorted({name.rpartition(".")[0] for name in adapter.tensors})


def cannot_hold(reason: str, names: ModelNames) -> UnsupportedKindError:
    """Say why an adapter does not go into AdapterHub's form, and what does."""
    return UnsupportedKindError(
        say(
            "AdapterHub cannot hold this adapter: {reason}. On {model_type} models it adapts {sites}, the same in "
            "every layer that has any, with one rank and one scale; keep the adapter as PEFT's folder: --to peft",
            reason=reason,
            model_type=names.model_type,
            sites=listing(_spec(names).adapterhub_lora.values()),
        )
    )


def _spec(names: ModelNames) -> ModelSpec:
    if names.spec is None or not names.spec.adapterhub_lora:
        raise UnsupportedKindError(
            say(
                "AdapterHub has no LoRA for {model_type} models; keep the adapter as PEFT's folder: --to peft",
                model_type=names.model_type,
            )
        )
    return names.spec


def _short_names(sites: Sequence[str], names: ModelNames) -> tuple[str, ...] | None:
    """Return the shortest names that mean these places in a layer and no other; None where one has no such name."""
    spec = _spec(names)
    everywhere = [*(linear.path for linear in spec.linears), *names.linears_outside_layers]
    short = []
    for site in sites:
        place = re.compile(rf"\.\d+\.{re.escape(site)}$")
        for name in (site.rpartition(".")[2], site):
            if all(place.search(path) for path in everywhere if f".{path}".endswith(f".{name}")):
                short.append(name)
                break
    return tuple(short) if len(short) == len(sites) else None


def _inside(path: str, spec: ModelSpec) -> tuple[int, str]:
    """Return the layer of a linear layer and its path there; (-1, path) outside the layers."""
    match = re.fullmatch(rf"(?:{re.escape(spec.prefix)}\.)?{re.escape(spec.layers)}\.(\d+)\.(.+)", path)
    return (int(match.group(1)), match.group(2)) if match else (-1, path)
