"""Check whether a base's tokenizer knows the language of the training texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tunedeck.data.check.language import ENCODER, unknown_language
from tunedeck.deck.deck import Deck

EXAMPLES = 200
"""How many examples are looked at."""
_DECODER = "ms:Qwen/Qwen2.5-0.5B"


def language_note(deck: Deck, examples: Sequence[Any]) -> str | None:
    """Return a warning if the tokenizer breaks these texts into unknown or tiny tokens, else None."""
    if deck.tokenizer is None:
        return None
    return unknown_language(
        deck.base.reference,
        [text for example in examples[:EXAMPLES] for text in _texts(example)],
        lambda texts: deck.tokenizer(texts, add_special_tokens=False)["input_ids"],
        deck.tokenizer.unk_token_id,
        _DECODER if "text" in deck.task.capabilities else ENCODER,
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in an example of any task: its fields, and those of the turns or pairs in it."""
    if isinstance(value, str):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in ("labels", "role", "spans"):
                yield from _texts(getattr(value, field.name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
