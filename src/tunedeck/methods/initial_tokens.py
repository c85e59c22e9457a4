"""The tokens that new virtual tokens begin as."""

from __future__ import annotations

from itertools import cycle, islice

import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.methods.base import Base
from tunedeck.methods.packed_embedding import vocabulary_size

COMMON_TOKENS = 5000
"""Vocabularies list common tokens first; prompts that begin as common tokens learn better (arXiv 2104.08691)."""


def initial_tokens(base: Base, init: str, text: str | None, count: int, *, setting: str) -> torch.Tensor:
    """Return ids of tokens (count,).

    AUTO is the separator of an encoder, which moves what a head reads of the text less than words do, on other models
    common words. Raises ConfigError for a `text`, the value of `setting`, without tokens.
    """
    if init == "TEXT":
        tokens = base.tokenize(text or "")
        if not tokens:
            raise ConfigError(say("{name} has no tokens; give a text", name=setting))
        return torch.tensor(list(islice(cycle(tokens), count)))
    if init == "AUTO" and base.separator is not None:
        return torch.full((count,), base.separator)
    return torch.randint(min(vocabulary_size(base.model), COMMON_TOKENS), (count,))
