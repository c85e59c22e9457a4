"""What training asks of a task: data to read, and an objective that turns rows into a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch

from tunedeck.data.settings import DataSettings
from tunedeck.deck.task import Task

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck

E = TypeVar("E")

BARE_BASE = "base"
"""How the base without an adapter is called in results."""


@dataclass(frozen=True, slots=True)
class Dataset(Generic[E]):
    """Examples to train on and to evaluate on; nothing stands in both."""

    source: str
    train: list[E]
    evaluation: list[E]
    sha256: str
    """Digest of the training examples."""
    description: str
    """Size, balance and lengths in a line."""
    labels: tuple[str, ...] | None = None
    best_by: str | None = None
    """The metric that tells the best state on these held-out examples, where it is not the task's own."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of each adapter on the same examples."""

    description: str
    metrics: dict[str, dict[str, float]]


class Objective(Protocol):
    """A dataset encoded for one adapter, as the loop works through it."""

    divisible: ClassVar[bool]
    """Whether a batch's loss is the mean of its parts' losses by their `weight`, so that it may be worked through in pieces."""
    remembers: bool
    """Whether the first pass over an example leaves something in memory that later passes take up."""
    lengths: Sequence[int]
    """Tokens of each training example, for batching."""

    @property
    def texts_per_example(self) -> float:
        """Rows of the base's batches for each training example."""
        ...

    def weight(self, rows: Sequence[int]) -> float:
        """What a batch counts in the mean loss of a step: its examples, or the tokens that are learnt."""
        ...

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Mean loss of some training examples, and how many positions were computed, padding included."""
        ...

    @staticmethod
    def losses(parts: Sequence[tuple[Any, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """`loss` of several objectives of one kind and deck, each with rows of its own, from one pass through the base.

        None of the adapters has tensors in the base's place.
        """
        ...

    def evaluate(self) -> dict[str, float]:
        """Metrics on the held-out examples, `loss` among them."""
        ...


class TrainableTask(Task, Protocol):
    """A task that an adapter can be trained for."""

    best_by: ClassVar[str]
    """The metric that tells the best state: `loss` is better when lower, any other when higher."""
    progress_metrics: ClassVar[tuple[str, ...]]
    """The metrics to show while training."""

    def read(self, settings: DataSettings) -> Dataset[Any]:
        """Read, check and split a run's data; DataError where it is not usable."""
        ...

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Metrics of adapters, None for the bare base, on all examples of `settings.train`."""
        ...

    def objective(self, deck: Deck, name: str, dataset: Dataset[Any]) -> Objective:
        """Encode a dataset for one adapter of a deck."""
        ...
