"""The attention kernel for decoding, where one new position attends to all positions before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from tunedeck.core.compat.transformers import attention_of, can_use_sdpa, set_attention
from tunedeck.deck.patches.base import Patch, Unchanged
from tunedeck.models.load import LoadedBase


@final
class SdpaAttention:
    """Compute attention with torch's scaled_dot_product_attention instead of plain products."""

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Switch the model's attention implementation while the block runs."""
        before = attention_of(base.model)
        set_attention(base.model, "sdpa")
        try:
            yield
        finally:
            set_attention(base.model, before)


def decoding_attention(base: LoadedBase) -> Patch:
    """Return the patch for steps of decoding: torch's kernel where the model runs without it and supports it.

    A base in bfloat16 on a CPU does. Plain products are faster there for whole texts, but for a single position they
    copy all keys and values for every query head.
    """
    switch = attention_of(base.model) == "eager" and can_use_sdpa(base.model)
    return SdpaAttention() if switch else Unchanged()
