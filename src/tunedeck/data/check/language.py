"""Tell whether a base's tokenizer knows the language of texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunedeck.core.i18n import say

CHARACTERS = 500
"""How much of each text is looked at."""
FEWEST_LETTERS = 300
"""Letters of different texts below which a tokenizer is not judged: "good" and "bad" a hundred times tell nothing."""
MOST_UNKNOWN = 0.05
LEAST_CHARACTERS_PER_TOKEN = {"ideographs": 0.85, "letters": 1.7}
"""A tokenizer made for a language takes an ideograph whole, and about four letters of an alphabet."""
ENCODER = "bundled:multilingual-e5-small"
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")

Encode = Callable[[list[str]], Sequence[Sequence[int]]]


def unknown_language(
    model: str, texts: Sequence[str], encode: Encode, unknown_id: int | None, better: str = ENCODER
) -> str | None:
    """Return a warning if the tokenizer of `model` breaks these texts into unknown or tiny tokens, else None.

    `encode` returns token ids without special tokens; `better` is the base that the warning names.
    """
    texts = list(dict.fromkeys(text[:CHARACTERS] for text in texts))
    characters = "".join("".join(texts).split())
    letters = sum(character.isalpha() for character in characters)
    if letters < len(characters) / 2 or letters < FEWEST_LETTERS:
        return None
    tokens = [token for ids in encode(texts) for token in ids]
    if not tokens:
        return None
    unknown = sum(token == unknown_id for token in tokens) / len(tokens)
    per_token = len(characters) / len(tokens)
    kind = "ideographs" if len(_IDEOGRAPH.findall(characters)) > letters / 2 else "letters"
    if unknown <= MOST_UNKNOWN and per_token >= LEAST_CHARACTERS_PER_TOKEN[kind]:
        return None
    return say(
        "{model} hardly knows the language of these texts: {unknown:.0%} of their tokens are unknown to it, and a "
        "token has {characters:.1f} characters; {better} knows many languages",
        model=model,
        unknown=unknown,
        characters=per_token,
        better=better,
    )
