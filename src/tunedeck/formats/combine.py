"""Combine the contents of several LoRA adapter folders into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from tunedeck.core.errors import AdapterError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.values import to_values
from tunedeck.formats.low_rank import kind_name, low_rank
from tunedeck.formats.manifest import Manifest, versions
from tunedeck.formats.tensors import StoredAdapter
from tunedeck.methods.lora.combine import COMBINATIONS, Combination, Factors, combine, combined_rank, needs_equal_ranks
from tunedeck.methods.lora.config import LoraConfig

__all__ = ["COMBINATIONS", "Combination", "combined"]


def combined(
    adapters: Sequence[StoredAdapter], weights: Sequence[float], how: Combination, density: float, seed: int
) -> StoredAdapter:
    """Return one adapter whose update of the base is the weighted combination of the others'; see `combine_adapters`.

    Raises UnsupportedKindError for other kinds than LoRA, AdapterError for adapters that do not belong together.
    """
    configs = [_lora_config(one) for one in adapters]
    _check_together(adapters)
    paths = sorted({name.rpartition(".")[0] for one in adapters for name in one.tensors})
    ranks = [max(config.rank(path) for path in paths) for config in configs]
    if needs_equal_ranks(how) and {config.rank(path) for config in configs for path in paths} != {ranks[0]}:
        raise AdapterError(
            say("{how} needs equal ranks, the adapters have {ranks}; use cat or svd", how=how, ranks=listing(ranks))
        )
    rank, draw = combined_rank(how, ranks), torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        parts = [
            Factors(one.tensors[f"{path}.lora_A"], one.tensors[f"{path}.lora_B"], weight * config.scaling(path))
            for one, config, weight in zip(adapters, configs, weights, strict=True)
            if f"{path}.lora_A" in one.tensors
        ]
        a, b, _ = combine(parts, how, rank, density, draw)
        tensors |= {f"{path}.lora_A": a.contiguous(), f"{path}.lora_B": b.contiguous()}
    config = LoraConfig(r=rank, lora_alpha=rank, **_targets(configs, paths))
    return dataclasses.replace(
        adapters[0],
        config=config,
        tensors=tensors,
        head=_mean_head(adapters, weights),
        manifest=_manifest(adapters[0].manifest, config),
    )


def _lora_config(adapter: StoredAdapter) -> LoraConfig:
    config = low_rank(adapter.config)
    if config is None:
        kind = kind_name(adapter.config)
        raise UnsupportedKindError(say("only LoRA adapters can be combined, not {kind}; leave that one out", kind=kind))
    return config


def _check_together(adapters: Sequence[StoredAdapter]) -> None:
    """Raise AdapterError for adapters of different bases, labels or heads."""
    bases = {_base(one): _shown_base(one) for one in adapters}
    if len(bases) > 1:
        raise AdapterError(
            say(
                "the adapters were trained on different bases: {bases}; combine adapters of one base",
                bases=listing(bases.values()),
            )
        )
    if len({one.labels for one in adapters}) > 1:
        known = "; ".join(listing(one.labels or ()) for one in adapters)
        raise AdapterError(say("the adapters have different labels: {labels}", labels=known))
    if len({tuple((name, one.head[name].shape) for name in sorted(one.head)) for one in adapters}) > 1:
        raise AdapterError(say("the adapters have different heads; train them with the same task settings"))


def _base(adapter: StoredAdapter) -> str:
    manifest = adapter.manifest
    return (manifest.base.fingerprint if manifest else None) or str(adapter.base_reference)


def _shown_base(adapter: StoredAdapter) -> str:
    """Return the base's name with the beginning of its fingerprint, which tells two of one name apart."""
    fingerprint = adapter.manifest.base.fingerprint if adapter.manifest else None
    return f"{adapter.base_reference} ({fingerprint[:12]})" if fingerprint else str(adapter.base_reference)


def _targets(configs: Sequence[LoraConfig], paths: Sequence[str]) -> dict[str, Any]:
    """Return the settings that name these layers: those of the adapters where they agree, else each layer's path."""
    first = configs[0]
    same = all(
        (one.target_modules, one.layers_to_transform) == (first.target_modules, first.layers_to_transform)
        for one in configs
    )
    if not same:
        return {"target_modules": tuple(paths)}
    return {"target_modules": first.target_modules, "layers_to_transform": first.layers_to_transform}


def _mean_head(adapters: Sequence[StoredAdapter], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return the mean of the heads by the weights' sizes: a head's logits have no zero to add to."""
    shares = torch.tensor(weights).abs() / torch.tensor(weights).abs().sum()
    return {
        name: torch.einsum("a,a...->...", shares, torch.stack([one.head[name].float() for one in adapters]))
        for name in adapters[0].head
    }


def _manifest(first: Manifest | None, config: LoraConfig) -> Manifest | None:
    """Return the first adapter's record without what is true of that one alone: metrics, data, cost and answers."""
    if first is None:
        return None
    method = {"kind": config.kind, **to_values(config)}
    return Manifest(base=first.base, task=first.task, method=method, versions=versions())
