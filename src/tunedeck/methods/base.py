"""Define the interface of a method: settings that load no torch, and the layers it adds at the sites of a model.

A `MethodConfig` answers everything that planner, comparison, search, export, serving and the command line ask about its
method, so that none of them knows a method by name. `methods/registry.py` checks that every member is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from tunedeck.core.model_spec import ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tunedeck.methods.sites import Placement

Trains = Literal["adapter", "head", "part", "all"]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The setting that makes a method larger or smaller, and the values worth trying.

    Each setting in `proportional` keeps its ratio to it, as LoRA's alpha does to r.
    """

    setting: str
    values: tuple[int, ...]
    proportional: tuple[str, ...] = ()


class MethodConfig(Protocol):
    """A method's hyper-parameters: a frozen dataclass that loads no torch and whose fields all have defaults."""

    kind: ClassVar[str]
    """The method's name in run files, manifests and on the command line."""
    layer_module: ClassVar[str]
    """The dotted name of the module with the method's torch side, see `Method`."""
    mergeable: ClassVar[bool]
    """Whether an adapter can be written into the base's weights."""
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Other names for the method with some settings fixed, as "head" is full fine-tuning with layers: head."""
    quantized_name: ClassVar[str | None]
    """The planner's name for the method on a 4-bit base, as qlora; None where it is not planned on one."""
    search_space: ClassVar[SearchSpace | None]
    """None for a method without such a setting."""

    @property
    def stored_as(self) -> str:
        """Return the format of its adapter folders: "peft", "adapterhub" or "tunedeck"."""
        ...

    @property
    def learning_rate(self) -> float:
        """Return the default peak learning rate for AdamW."""
        ...

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Return the lowest and the highest learning rate worth trying."""
        ...

    @property
    def trains(self) -> Trains:
        """Return the trained part: layers added to the frozen model ("adapter"), or the model's tensors: "head", "part"
        or "all".
        """
        ...

    @property
    def virtual_tokens(self) -> int:
        """Return number of virtual tokens in front of each text."""
        ...

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return the number of trainable parameters besides the task head, from the config alone.

        Raises TargetError where the settings do not fit the model, ArchitectureError where the method does not.
        """
        ...

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the lowest layer that gradients must reach; `spec.num_layers` where they end at the head."""
        ...

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return the bytes of one token that the method keeps for its backward pass, all layers of the model together.

        `number_bytes` is the size of one number of the base. With `float32_inputs` each adapted linear layer also
        keeps a float32 copy of its input, as PEFT's LoRA does on a 16-bit base.
        """
        ...

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return how much time the method adds to the base's matrix products, as a share of theirs."""
        ...


@runtime_checkable
class LeavesToModel(Protocol):
    """A `MethodConfig` with a setting whose default depends on the model."""

    def for_model(self, spec: ModelSpec | None) -> MethodConfig:
        """Return the settings as they are on this model."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen model a method is built on, as `Method.build` sees it."""

    model: nn.Module
    prefix: str
    spec: ModelSpec | None
    """None for an architecture without a row in architectures.toml."""
    head: tuple[str, ...]
    """Modules of which every adapter has its own copy, independent of its method."""
    tokenize: Callable[[str], list[int]]
    """A text to its token ids, without special tokens."""
    separator: int | None
    """The token that ends a text of an encoder ([SEP], </s>); None on other models."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Trained keys and values that every text of an adapter attends to, in each layer."""

    positions: int
    """Number of positions that they take before the text."""
    keys_values: Callable[[], Sequence[tuple[torch.Tensor, torch.Tensor]]]
    """Return each layer's keys and values, (1, heads, virtual tokens, size), with which a cache begins."""


@dataclass(frozen=True, slots=True)
class Built:
    """Hold the tensors that a method adds for one adapter, under names that are stable on disk."""

    placements: Mapping[str, Placement] = field(default_factory=dict)
    weights: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """The adapter's copies of base tensors, by parameter name: what full fine-tuning trains."""
    virtual_tokens: int = 0
    """Number of virtual tokens in front of each text."""
    prefix: Prefix | None = None
    frozen_layer: Callable[[nn.Module], object] = lambda layer: layer
    """Replace a layer in an adapter for inference only; a full module's tables take kilobytes."""

    @property
    def positions_before(self) -> int:
        """Return the number of positions before each text: virtual tokens and a prefix."""
        return self.virtual_tokens + (0 if self.prefix is None else self.prefix.positions)


class Method(Protocol):
    """The torch side of a method: the functions of the module that its config names as `layer_module`."""

    def shapes(self, base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that `build` would make, by their names on disk, without making any.

        Raises TargetError where the config does not fit the model.
        """
        ...

    def build(self, base: Base, config: MethodConfig) -> Built:
        """Make new layers for one adapter; TargetError where the config does not fit the model."""
        ...

    def merge(self, model: nn.Module, built: Built) -> None:
        """Write the adapter into the weights of `model`; needed where the config is `mergeable`."""
        ...
