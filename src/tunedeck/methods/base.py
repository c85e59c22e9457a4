"""What a method is: settings that load no torch, and the layers it puts at the sites of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from tunedeck.core.model_spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from tunedeck.methods.sites import Placement


class MethodConfig(Protocol):
    """A method's hyper-parameters: a frozen dataclass that loads no torch."""

    kind: ClassVar[str]

    @property
    def learning_rate(self) -> float:
        """The default peak learning rate for AdamW."""
        ...

    def count_parameters(self, spec: ModelSpec) -> int:
        """The number of trainable parameters besides the task head, from the config alone."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen model a method is built on, as `Method.build` sees it."""

    model: nn.Module
    prefix: str
    spec: ModelSpec | None
    """None for an architecture without a row in architectures.toml."""
    head: tuple[str, ...]
    """Modules that every adapter brings its own copy of, whatever its method."""
    tokenize: Callable[[str], list[int]]
    """A text to its token ids, without special tokens."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a method adds for one adapter, by names that are stable on disk."""

    placements: Mapping[str, Placement] = field(default_factory=dict)
    weights: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """The adapter's own copies of base tensors, by parameter name: what full fine-tuning trains."""
    virtual_tokens: int = 0
    """Number of virtual tokens in front of each text."""


class Method(Protocol):
    """The torch side of a method: `tunedeck.methods.<kind>.layer` has these three functions."""

    def shapes(self, base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors that `build` would make, by their names on disk; nothing is made. TargetError as there."""
        ...

    def build(self, base: Base, config: MethodConfig) -> Built:
        """New layers for one adapter; TargetError where the config does not fit the model."""
        ...

    def merge(self, model: nn.Module, built: Built) -> None:
        """Write the adapter into the weights of `model`; UnsupportedKindError where the kind cannot."""
        ...
