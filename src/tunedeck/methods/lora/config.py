"""LoRA's hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import Linear, ModelSpec
from tunedeck.core.patterns import fullmatch
from tunedeck.core.settings import Help
from tunedeck.core.values import check_finite
from tunedeck.methods.base import SearchSpace, Trains
from tunedeck.methods.targets import select_targets

LORA_COST = 1.12
"""Relative time with LoRA on 4 of a layer's 7 linear layers: two thin products and an addition each (fms rows)."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """LoRA hyper-parameters; field names and meanings are those of PEFT's adapter_config.json.

    `target_modules` is names (matched at the end of a module's path), a regular expression (matched against the whole
    path), "all-linear" (every linear in the layers), or None for the architecture's default.
    Raises ConfigError for values out of range.
    """

    kind: ClassVar[str] = "lora"
    layer_module: ClassVar[str] = "tunedeck.methods.lora.layer"
    stored_as: ClassVar[str] = "peft"
    mergeable: ClassVar[bool] = True
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    quantized_name: ClassVar[str | None] = "qlora"
    search_space: ClassVar[SearchSpace | None] = SearchSpace("r", (4, 8, 16, 32), proportional=("lora_alpha",))
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, float]] = (3e-4, 3e-3)
    trains: ClassVar[Trains] = "adapter"
    virtual_tokens: ClassVar[int] = 0

    r: Annotated[int, Help(say("LoRA rank"))] = 8
    lora_alpha: Annotated[float, Help(say("LoRA alpha: the update is scaled by alpha / r"))] = 16.0
    lora_dropout: Annotated[float, Help(say("dropout of the input of LoRA"))] = 0.0
    target_modules: Annotated[
        tuple[str, ...] | str | None, Help(say("names with commas, a regular expression, or all-linear"))
    ] = None
    layers_to_transform: Annotated[tuple[int, ...] | None, Help(say("layers with LoRA, from 0; all by default"))] = None
    use_rslora: Annotated[bool, Help(say("scale by alpha / sqrt(r) instead (arXiv 2312.03732)"))] = False
    rank_pattern: Annotated[Mapping[str, int], Help(say("ranks of single modules, by name or regular expression"))] = (
        field(default_factory=dict)
    )
    alpha_pattern: Annotated[
        Mapping[str, float], Help(say("alphas of single modules, by name or regular expression"))
    ] = field(default_factory=dict)
    use_dora: Annotated[bool, Help(say("DoRA: train the length of each row of the weight too (arXiv 2402.09353)"))] = (
        False
    )

    def __post_init__(self) -> None:
        check_finite(self)
        for name, r in (("r", self.r), *self.rank_pattern.items()):
            if r < 1:
                raise ConfigError(say("{name} must be 1 or more, got {value}", name=name, value=r))
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(
                say("{name} must be at least 0 and below 1, got {value}", name="lora_dropout", value=self.lora_dropout)
            )
        if self.target_modules is not None and len(self.target_modules) == 0:
            raise ConfigError(say("{name} is empty; name at least one module, or leave it out", name="target_modules"))
        if self.layers_to_transform is not None and len(self.layers_to_transform) == 0:
            raise ConfigError(say("layers_to_transform is empty; name at least one layer, or leave it out"))

    def rank(self, path: str) -> int:
        """Return the rank at a module path: `rank_pattern` where it matches, else `r`."""
        return self.rank_pattern.get(_pattern(self.rank_pattern, path), self.r)

    def scaling(self, path: str) -> float:
        """Return the factor on B·A: alpha / r, or alpha / sqrt(r) with `use_rslora` (arXiv 2312.03732)."""
        alpha = self.alpha_pattern.get(_pattern(self.alpha_pattern, path), self.lora_alpha)
        r = self.rank(path)
        return alpha / math.sqrt(r) if self.use_rslora else alpha / r

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return r·(in + out) for every targeted linear, and with DoRA a length for each of its outputs."""
        linears = self._linears(spec)
        lengths = sum(one.out_features for one in linears) if self.use_dora else 0
        return lengths + sum(self.rank(one.path) * (one.in_features + one.out_features) for one in linears)

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the lowest of `layers_to_transform`."""
        return 0 if self.layers_to_transform is None else min(self.layers_to_transform)

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return the inputs of the targeted linear layers, once where layers share it, A's outputs of r numbers, and
        with DoRA the outputs before they are scaled.
        """
        linears = self._linears(spec)
        inputs = {(one.path.rpartition(".")[0], one.in_features) for one in linears}
        copies = 4 * sum(one.in_features for one in linears) if float32_inputs and number_bytes < 4 else 0
        kept = sum(self.rank(one.path) for one in linears)
        kept += sum(one.out_features for one in linears) if self.use_dora else 0
        return number_bytes * (sum(width for _, width in inputs) + kept) + copies

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return the overhead in proportion to the share of linear layers that are targeted."""
        adapted = len(self._linears(spec)) / len(spec.linears)
        return (LORA_COST - 1) * adapted / (4 / 7)

    def _linears(self, spec: ModelSpec) -> list[Linear]:
        linears = {linear.path: linear for linear in spec.linears}
        targets = select_targets(
            self.target_modules or spec.lora_targets, list(linears), layers_to_transform=self.layers_to_transform
        )
        return [linears[path] for path in targets]


def _pattern(patterns: Mapping[str, object], path: str) -> str:
    """Return the first pattern that matches a path as PEFT's `get_pattern_key` does, else the path."""
    return next((p for p in patterns if fullmatch(rf"(.*\.)?({p})", path)), path)
