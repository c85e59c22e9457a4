"""Check whether a base's tokenizer knows the language of the training texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck

EXAMPLES, CHARACTERS = 200, 500
"""How many examples are looked at, and how much of each text."""
FEWEST_LETTERS = 300
"""Letters of different texts below which a tokenizer is not judged: "good" and "bad" a hundred times tell nothing."""
MOST_UNKNOWN = 0.05
LEAST_CHARACTERS_PER_TOKEN = {"ideographs": 0.85, "letters": 1.7}
"""A tokenizer made for a language takes an ideograph whole, and about four letters of an alphabet."""
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_ENCODER, _DECODER = "bundled:multilingual-e5-small", "ms:Qwen/Qwen2.5-0.5B"


def language_note(deck: Deck, examples: Sequence[Any]) -> str | None:
    """Return a warning if the tokenizer breaks these texts into unknown or tiny tokens, else None."""
    texts = list(dict.fromkeys(text[:CHARACTERS] for example in examples[:EXAMPLES] for text in _texts(example)))
    characters = "".join("".join(texts).split())
    letters = sum(character.isalpha() for character in characters)
    if deck.tokenizer is None or letters < len(characters) / 2 or letters < FEWEST_LETTERS:
        return None
    tokens = [token for ids in deck.tokenizer(texts, add_special_tokens=False)["input_ids"] for token in ids]
    if not tokens:
        return None
    unknown = tokens.count(deck.tokenizer.unk_token_id) / len(tokens)
    per_token = len(characters) / len(tokens)
    kind = "ideographs" if len(_IDEOGRAPH.findall(characters)) > letters / 2 else "letters"
    if unknown <= MOST_UNKNOWN and per_token >= LEAST_CHARACTERS_PER_TOKEN[kind]:
        return None
    return say(
        "{model} hardly knows the language of these texts: {unknown:.0%} of their tokens are unknown to it, and a "
        "token has {characters:.1f} characters; {better} knows many languages",
        model=deck.base.reference,
        unknown=unknown,
        characters=per_token,
        better=_DECODER if "text" in deck.task.capabilities else _ENCODER,
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in an example of any task: its own fields, and those of the turns or pairs in it."""
    if isinstance(value, str):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in ("labels", "role", "spans"):
                yield from _texts(getattr(value, field.name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
