"""What the deck asks of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
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

    def as_described(self, described: Mapping[str, Any]) -> Task:
        """The same task with what an adapter's tunedeck.json says of how its answers read."""
        ...

    def describe(self) -> dict[str, Any]:
        """The task as plain JSON values for tunedeck.json."""
        ...

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Any]:
        """One answer for each text, by the adapter named for its row."""
        ...
