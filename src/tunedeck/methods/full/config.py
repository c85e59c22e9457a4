"""Full fine-tuning's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.settings import Help
from tunedeck.methods.base import SearchSpace, Trains


@dataclass(frozen=True, slots=True)
class FullConfig:
    """Choose what to train besides the head: "all" of the base, its top k layers and what follows, or "head" only.

    Raises ConfigError for another value.
    """

    kind: ClassVar[str] = "full"
    layer_module: ClassVar[str] = "tunedeck.methods.full.layer"
    stored_as: ClassVar[str] = "tunedeck"
    mergeable: ClassVar[bool] = True
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"head": {"layers": "head"}}
    quantized_name: ClassVar[str | None] = None
    search_space: ClassVar[SearchSpace | None] = None
    virtual_tokens: ClassVar[int] = 0

    layers: Annotated[
        Literal["all", "head"] | int,
        Help(say("what trains: all of the base, a number of its top layers, or the head only")),
    ] = "all"

    def __post_init__(self) -> None:
        if self.layers not in ("all", "head") and (not isinstance(self.layers, int) or self.layers < 1):
            raise ConfigError(
                say(
                    "layers must be all, head, or how many of the top layers to train, got {value!r}", value=self.layers
                )
            )

    @property
    def learning_rate(self) -> float:
        """Return the default rate: high for a new head only, low for pretrained tensors."""
        return 5e-3 if self.layers == "head" else 1e-4

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Return the lowest and the highest learning rate worth trying."""
        return (5e-4, 5e-2) if self.layers == "head" else (3e-5, 3e-4)

    @property
    def trains(self) -> Trains:
        """Return the trained part by `layers`."""
        return "part" if isinstance(self.layers, int) else self.layers

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return the parameters of the chosen part of the base."""
        if self.layers == "head":
            return 0
        if self.layers == "all":
            return spec.base_parameters
        self.check_depth(spec.num_layers)
        return sum(spec.layer_parameters[-self.layers :]) + spec.final_parameters

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the lowest of the layers that train; none of them where the head trains alone."""
        if self.layers == "all":
            return 0
        return spec.num_layers if self.layers == "head" else spec.num_layers - self.layers

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return the inputs of the linear layers that nothing else keeps: 2 H of the projections, the feed-forward's
        width.
        """
        if self.layers == "head":
            return 0
        return number_bytes * (2 * spec.hidden_size + spec.ffn_size) * spec.num_layers

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return no overhead: the products are the base's."""
        return 0.0

    def check_depth(self, num_layers: int) -> None:
        """Raise TargetError when more layers are asked for than there are."""
        if isinstance(self.layers, int) and self.layers > num_layers:
            raise TargetError(
                say("layers: {value} is more than the model's {total} layers", value=self.layers, total=num_layers)
            )
