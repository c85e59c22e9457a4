"""(IA)³'s hyper-parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.i18n import listing, say
from tunedeck.core.model_spec import Linear, ModelSpec
from tunedeck.core.patterns import fullmatch
from tunedeck.core.settings import Help
from tunedeck.methods.base import SearchSpace, Trains
from tunedeck.methods.targets import select_targets


@dataclass(frozen=True, slots=True)
class Ia3Config:
    """(IA)³ hyper-parameters; field names and meanings are those of PEFT's adapter_config.json.

    `target_modules` is names (matched at the end of a module's path), a regular expression (matched against the whole
    path), "all-linear" (every linear in the layers), or None for the keys, the values and the last linear of each
    feed-forward block. `feedforward_modules` says, by names or a regular expression, which of them have their input
    scaled instead of their output; None means the last linear of each feed-forward block. Raises ConfigError for an
    empty `target_modules`.
    """

    kind: ClassVar[str] = "ia3"
    layer_module: ClassVar[str] = "tunedeck.methods.ia3.layer"
    stored_as: ClassVar[str] = "peft"
    mergeable: ClassVar[bool] = True
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    quantized_name: ClassVar[str | None] = None
    search_space: ClassVar[SearchSpace | None] = None
    learning_rate: ClassVar[float] = 5e-3
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 2e-2)
    trains: ClassVar[Trains] = "adapter"
    virtual_tokens: ClassVar[int] = 0

    target_modules: Annotated[
        tuple[str, ...] | str | None, Help(say("names with commas, a regular expression, or all-linear"))
    ] = None
    feedforward_modules: Annotated[
        tuple[str, ...] | str | None,
        Help(say("which of target_modules have their input scaled: names with commas, or a regular expression")),
    ] = None

    def __post_init__(self) -> None:
        if self.target_modules is not None and len(self.target_modules) == 0:
            raise ConfigError(say("{name} is empty; name at least one module, or leave it out", name="target_modules"))

    def targets(self, spec: ModelSpec | None) -> tuple[str, ...] | str:
        """Return `target_modules`, or the default as a regular expression; TargetError where none is known."""
        if self.target_modules is not None:
            return self.target_modules
        if spec is None:
            raise TargetError(
                say(
                    "no default target_modules are known for this architecture; name some, or use target_modules: "
                    "all-linear"
                )
            )
        return rf".*\.\d+\.({'|'.join(re.escape(path) for path in (*spec.keys_values, spec.ffn_output))})"

    def scaled_inputs(self, targeted: Sequence[str], spec: ModelSpec | None) -> set[str]:
        """Return which of the targeted paths have their input scaled; TargetError for a name that means none."""
        chosen = self.feedforward_modules
        if chosen is None:
            chosen = () if spec is None else rf".*\.\d+\.{re.escape(spec.ffn_output)}"
            return {path for path in targeted if chosen and fullmatch(chosen, path)}
        if isinstance(chosen, str):
            found = {path for path in targeted if fullmatch(chosen, path)}
            return found if found else self._no_match(chosen, targeted)
        named = {name: {path for path in targeted if f".{path}".endswith(f".{name}")} for name in chosen}
        for name, paths in named.items():
            if not paths:
                self._no_match(name, targeted)
        return set().union(*named.values())

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return one number for every output of a targeted linear, or for every input where that is scaled."""
        return sum(self._sizes(spec))

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the lowest layer with a targeted linear layer."""
        numbers = (re.search(r"\.(\d+)\.", one.path) for one in self._linears(spec))
        return min(int(number[1]) for number in numbers if number)

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return the bytes of what is scaled, before it is."""
        return number_bytes * sum(self._sizes(spec))

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return 0: not measured; it multiplies, but adds no matrix product."""
        return 0.0

    def _sizes(self, spec: ModelSpec) -> list[int]:
        linears = self._linears(spec)
        inputs = self.scaled_inputs([one.path for one in linears], spec)
        return [one.in_features if one.path in inputs else one.out_features for one in linears]

    def _linears(self, spec: ModelSpec) -> list[Linear]:
        linears = {linear.path: linear for linear in spec.linears}
        return [linears[path] for path in select_targets(self.targets(spec), list(linears))]

    def _no_match(self, name: str, targeted: Sequence[str]) -> set[str]:
        raise TargetError(
            say(
                "feedforward_modules: {name!r} matches none of the targeted modules ({known})",
                name=name,
                known=listing(sorted({path.rpartition(".")[2] for path in targeted})),
            )
        )
