"""Full fine-tuning's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class FullConfig:
    """What to train besides the head: "all" of the base, its top k layers (a number) and what follows them, or "head" alone.

    Raises ConfigError for another value.
    """

    kind: ClassVar[str] = "full"
    layers: Literal["all", "head"] | int = "all"

    def __post_init__(self) -> None:
        if self.layers not in ("all", "head") and (not isinstance(self.layers, int) or self.layers < 1):
            raise ConfigError(
                say(
                    "layers must be all, head, or how many of the top layers to train, got {value!r}", value=self.layers
                )
            )

    @property
    def learning_rate(self) -> float:
        """A fresh head alone stands a high rate; trained tensors want a low one."""
        return 5e-3 if self.layers == "head" else 1e-4

    def count_parameters(self, spec: ModelSpec) -> int:
        """The parameters of the chosen part of the base."""
        if self.layers == "head":
            return 0
        if self.layers == "all":
            return spec.base_parameters
        self.check_depth(spec.num_layers)
        return sum(spec.layer_parameters[-self.layers :]) + spec.final_parameters

    def check_depth(self, num_layers: int) -> None:
        """Raise TargetError when more layers are asked for than there are."""
        if isinstance(self.layers, int) and self.layers > num_layers:
            raise TargetError(
                say("layers: {value} is more than the model's {total} layers", value=self.layers, total=num_layers)
            )
