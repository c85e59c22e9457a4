"""Which of the base's biases and norms train."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from tunedeck.core.errors import ArchitectureError, ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import Linear, ModelSpec
from tunedeck.core.settings import Help
from tunedeck.methods.base import SearchSpace, Trains
from tunedeck.methods.targets import select_targets


@dataclass(frozen=True, slots=True)
class BiasConfig:
    """Choose which vectors of the base train: biases of linear layers, norms (weight and bias), or both.

    `bias_modules` chooses linear layers with a bias as LoraConfig's `target_modules` does, `norm_modules` chooses norms
    by names (matched at the end of a module's path); None means all in the layers. Raises ConfigError for an empty or a
    useless choice.
    """

    kind: ClassVar[str] = "bias"
    layer_module: ClassVar[str] = "tunedeck.methods.bias.layer"
    stored_as: ClassVar[str] = "tunedeck"
    mergeable: ClassVar[bool] = True
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bitfit": {"vectors": "biases"},
        "ln_tuning": {"vectors": "norms"},
    }
    quantized_name: ClassVar[str | None] = None
    search_space: ClassVar[SearchSpace | None] = None
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, float]] = (3e-4, 3e-3)
    trains: ClassVar[Trains] = "adapter"
    virtual_tokens: ClassVar[int] = 0

    vectors: Annotated[
        Literal["both", "biases", "norms"], Help(say("biases of linear layers (BitFit), norms, or both"))
    ] = "both"
    bias_modules: Annotated[
        tuple[str, ...] | str | None,
        Help(say("linear layers whose bias trains: names with commas, or a regular expression")),
    ] = None
    norm_modules: Annotated[tuple[str, ...] | None, Help(say("names of norms; all in the layers by default"))] = None

    def __post_init__(self) -> None:
        for name, chosen, without in (
            ("bias_modules", self.bias_modules, "norms"),
            ("norm_modules", self.norm_modules, "biases"),
        ):
            if chosen is not None and len(chosen) == 0:
                raise ConfigError(say("{name} is empty; name at least one module, or leave it out", name=name))
            if chosen is not None and self.vectors == without:
                raise ConfigError(
                    say("{name} has no effect with vectors: {value}; leave one of them out", name=name, value=without)
                )

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return one number for each output of a linear with a bias, and the sizes of the norms of the layers."""
        return sum(one.out_features for one in self._linears(spec)) + self._norm_parameters(spec)

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the first layer where norms train, else the lowest with a bias that trains."""
        if self.vectors != "biases":
            return 0
        numbers = (re.search(r"\.(\d+)\.", one.path) for one in self._linears(spec))
        return min(int(number[1]) for number in numbers if number)

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return nothing for biases; the input of each norm, of which a layer has two or more."""
        return 0 if self.vectors == "biases" else 2 * number_bytes * spec.hidden_size * spec.num_layers

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return 0: not measured; it adds no matrix product."""
        return 0.0

    def _norm_parameters(self, spec: ModelSpec) -> int:
        if self.vectors == "biases":
            return 0
        if self.norm_modules is not None:
            raise ArchitectureError(
                say("the sizes of single norms are not known without the model; leave norm_modules out")
            )
        in_linears = sum(one.out_features * (one.in_features + one.bias) for one in spec.linears)
        return sum(spec.layer_parameters) - in_linears

    def _linears(self, spec: ModelSpec) -> list[Linear]:
        """Return the linear layers whose bias trains; ArchitectureError where only biases train and there are none."""
        linears = {one.path: one for one in spec.linears if one.bias}
        if self.vectors == "norms":
            return []
        return [linears[path] for path in self.biased(list(linears))]

    def biased(self, paths: list[str]) -> list[str]:
        """Return which of `paths`, the linears that have a bias, are meant.

        Raises TargetError where a name matches none, ArchitectureError where no linear layer has a bias and only biases
        are to train.
        """
        if not paths and (self.vectors == "biases" or self.bias_modules is not None):
            raise ArchitectureError(say("no linear layer of this model has a bias; use vectors: norms"))
        return select_targets(self.bias_modules or "all-linear", paths) if paths else []
