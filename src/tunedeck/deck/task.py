"""Define the interface of a task for the deck, and optional capabilities: labels, predictions, text, vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, cast

from torch import Tensor

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.pooling import HeadPooling
from tunedeck.models.load import LoadedBase

Capability: TypeAlias = Literal["labels", "predictions", "text", "vectors"]
"""Labels mean `Labelled`, predictions `Predicting`, text `Generating` and vectors `Embedding`."""
D_contra = TypeVar("D_contra", contravariant=True)
"""The deck that answers; the deck's module says which it is."""


class Task(Protocol):
    """Define the purpose for which a base is loaded, and the part of it that an adapter's folder stores."""

    kind: ClassVar[str]
    """The task's name in run files and manifests."""
    auto_class: ClassVar[str]
    """The transformers auto class the base is loaded with."""
    peft_task: ClassVar[str]
    """PEFT's task_type."""
    capabilities: ClassVar[frozenset[Capability]]
    """Which of the protocols below the task fulfils."""

    def for_base(self, base: LoadedBase) -> Task:
        """Return the task with the base's settings where none are given."""
        ...

    def as_described(self, described: Mapping[str, Any]) -> Task:
        """Return the same task with the form of the answers from an adapter's tunedeck.json; {} where there is
        none.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values for tunedeck.json."""
        ...


class Labelled(Task, Protocol):
    """A task whose adapters each have their own head with one output for each label."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Return the label names, None where they are not known yet."""
        ...

    @property
    def pooling(self) -> str:
        """Return the head's input, a `HeadPooling`; "model" for a task that always uses the model's head."""
        ...

    def with_labels(self, labels: Sequence[str]) -> Labelled:
        """Return the same task with other labels."""
        ...


class Predicting(Protocol[D_contra]):
    """A task that answers each text with one prediction."""

    def predict(self, deck: D_contra, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Any]:
        """Answer each text by the adapter named for its row."""
        ...


class Generating(Protocol[D_contra]):
    """A task that answers with text."""

    def generate(
        self, deck: D_contra, prompts: Sequence[Any], adapters: Sequence[str | None], sampling: Any
    ) -> list[str]:
        """Answer each prompt."""
        ...

    def stream(
        self, deck: D_contra, prompts: Sequence[Any], adapters: Sequence[str | None], sampling: Any
    ) -> Iterator[Any]:
        """Answer piece by piece."""
        ...


class Embedding(Protocol[D_contra]):
    """A task that answers with vectors."""

    def embed(self, deck: D_contra, texts: Sequence[str], adapters: Sequence[str | None], *, as_query: bool) -> Tensor:
        """Return a vector for each text, (texts, hidden)."""
        ...


def has_labels(task: Task) -> bool:
    """Tell whether each adapter has labels and its head."""
    return "labels" in task.capabilities


def labels_of(task: Task) -> tuple[str, ...] | None:
    """Return the label names, None for a task without labels or before they are known."""
    return cast(Labelled, task).labels if has_labels(task) else None


def pooling_of(task: Task) -> HeadPooling:
    """Return what the heads of a task's adapters read; "model" for a task without heads."""
    return cast(HeadPooling, cast(Labelled, task).pooling) if has_labels(task) else "model"


def with_labels(task: Task, labels: Sequence[str]) -> Labelled:
    """Return the same task with other labels; ConfigError for a task without labels."""
    if not has_labels(task):
        raise ConfigError(say("the task {kind} has no labels; use Classify", kind=task.kind))
    return cast(Labelled, task).with_labels(labels)


def predicting(task: Task) -> Predicting[Any]:
    """Return the task as one that predicts; ConfigError when it does not."""
    if "predictions" not in task.capabilities:
        raise ConfigError(
            say("predict answers with labels or text; vectors come from deck.embed(texts) or tunedeck embed")
        )
    return cast("Predicting[Any]", task)


def generating(task: Task) -> Generating[Any]:
    """Return the task as one that generates; ConfigError when the deck was loaded for another."""
    if "text" not in task.capabilities:
        raise ConfigError(
            say("this base is loaded for {kind}; to generate, load it with td.Generate()", kind=task.kind)
        )
    return cast("Generating[Any]", task)


def embedding(task: Task) -> Embedding[Any]:
    """Return the task as one that embeds; ConfigError when the deck was loaded for another."""
    if "vectors" not in task.capabilities:
        raise ConfigError(
            say("this base is loaded for {kind}; to make vectors, load it with td.Embed()", kind=task.kind)
        )
    return cast("Embedding[Any]", task)
