"""What the deck asks of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from torch import Tensor

    from tunedeck.deck.deck import Deck


class Task(Protocol):
    """What a base is loaded for: which transformers class, which labels, and how its output reads."""

    kind: ClassVar[str]
    auto_class: ClassVar[str]
    """The transformers auto class the base is loaded with."""
    peft_task: ClassVar[str]
    """PEFT's task_type."""

    has_head: ClassVar[bool]
    """Whether each adapter has a head of its own, sized by its labels."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The label names, None where the task has none or they are not known yet."""
        ...

    def with_labels(self, labels: Sequence[str]) -> Task:
        """The same task with other labels."""
        ...

    def for_base(self, reference: str) -> Task:
        """The same task with what a base says of itself where nothing is set."""
        ...

    def as_described(self, described: Mapping[str, Any]) -> Task:
        """The same task with what an adapter's tunedeck.json says of how its answers read."""
        ...

    def describe(self) -> dict[str, Any]:
        """The task as plain JSON values for tunedeck.json."""
        ...

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Any]:
        """One answer for each text, by the adapter named for its row."""
        ...


class EmbeddingTask(Protocol):
    """A task that answers with vectors."""

    def embed(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], *, as_query: bool) -> Tensor:
        """A vector for each text, (texts, hidden)."""
        ...


class GeneratingTask(Protocol):
    """A task that answers with text."""

    def generate(self, deck: Deck, prompts: Sequence[Any], adapters: Sequence[str | None], sampling: Any) -> list[str]:
        """An answer to each prompt."""
        ...

    def stream(
        self, deck: Deck, prompts: Sequence[Any], adapters: Sequence[str | None], sampling: Any
    ) -> Iterator[Any]:
        """The same, piece by piece."""
        ...


def generating(task: Task) -> GeneratingTask:
    """The task as one that generates; ConfigError when the deck was loaded for another."""
    if task.kind != "generate":
        raise ConfigError(
            say("this base is loaded for {kind}; to generate, load it with td.Generate()", kind=task.kind)
        )
    return cast(GeneratingTask, task)


def embedding(task: Task) -> EmbeddingTask:
    """The task as one that embeds; ConfigError when the deck was loaded for another."""
    if task.kind != "embed":
        raise ConfigError(
            say("this base is loaded for {kind}; to make vectors, load it with td.Embed()", kind=task.kind)
        )
    return cast(EmbeddingTask, task)
