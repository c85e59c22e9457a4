"""LoRA's hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.patterns import fullmatch
from tunedeck.core.values import check_finite
from tunedeck.methods.lora.targets import select_targets


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """LoRA hyper-parameters; field names and meanings are those of PEFT's adapter_config.json.

    `target_modules` is names (matched at the end of a module's path), a regular expression (matched against the whole
    path), "all-linear" (every linear in the layers), or None for the architecture's default.
    Raises ConfigError for values out of range.
    """

    kind: ClassVar[str] = "lora"
    learning_rate: ClassVar[float] = 1e-3

    r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | str | None = None
    layers_to_transform: tuple[int, ...] | None = None
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

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
            raise ConfigError(say("target_modules is empty; name at least one module, or leave it out"))
        if self.layers_to_transform is not None and len(self.layers_to_transform) == 0:
            raise ConfigError(say("layers_to_transform is empty; name at least one layer, or leave it out"))

    def rank(self, path: str) -> int:
        """The rank at a module path: `rank_pattern` where it matches, else `r`."""
        return self.rank_pattern.get(_pattern(self.rank_pattern, path), self.r)

    def scaling(self, path: str) -> float:
        """The factor on B·A: alpha / r, or alpha / sqrt(r) with `use_rslora` (arXiv 2312.03732)."""
        alpha = self.alpha_pattern.get(_pattern(self.alpha_pattern, path), self.lora_alpha)
        r = self.rank(path)
        return alpha / math.sqrt(r) if self.use_rslora else alpha / r

    def count_parameters(self, spec: ModelSpec) -> int:
        """r·(in + out) for every targeted linear."""
        linears = {linear.path: linear for linear in spec.linears}
        targets = select_targets(
            self.target_modules or spec.lora_targets, list(linears), layers_to_transform=self.layers_to_transform
        )
        return sum(self.rank(path) * (linears[path].in_features + linears[path].out_features) for path in targets)


def _pattern(patterns: Mapping[str, object], path: str) -> str:
    """The first pattern that matches a path as PEFT's `get_pattern_key` does, else the path."""
    return next((p for p in patterns if fullmatch(rf"(.*\.)?({p})", path)), path)
