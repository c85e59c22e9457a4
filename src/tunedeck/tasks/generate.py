"""Text generation by a causal language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.deck.deck import Deck


@final
@dataclass(frozen=True, slots=True)
class Generate:
    """Load a causal language model and call it: `deck(input_ids, ...)` gives logits (batch, seq, vocab)."""

    kind: ClassVar[str] = "generate"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    peft_task: ClassVar[str] = "CAUSAL_LM"
    has_head: ClassVar[bool] = False

    @property
    def labels(self) -> None:
        """Generation has no labels."""
        return None

    def with_labels(self, labels: Sequence[str]) -> Generate:
        """Refuse: ConfigError."""
        raise ConfigError(say("a generation task has no labels; use Classify"))

    def as_described(self, described: Mapping[str, Any]) -> Generate:
        """The same task: nothing of it is an adapter's own."""
        return self

    def describe(self) -> dict[str, Any]:
        """The task as plain JSON values."""
        return {"kind": self.kind}

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Any]:
        """Refuse: ConfigError; call the deck for logits."""
        raise ConfigError(
            say("predict answers classification; call deck(input_ids, adapter=...) for a language model's logits")
        )
