"""The attention kernel for decoding, where one new position attends to all positions before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast, final

from tunedeck.deck.patches.base import Patch, Unchanged
from tunedeck.models.load import LoadedBase


@final
class SdpaAttention:
    """Compute attention with torch's scaled_dot_product_attention instead of plain products."""

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Switch the model's attention implementation while the block runs."""
        config = cast(Any, base.model).config
        before = config._attn_implementation
        config._attn_implementation = "sdpa"
        try:
            yield
        finally:
            config._attn_implementation = before


def decoding_attention(base: LoadedBase) -> Patch:
    """Return the patch for steps of decoding: torch's kernel where the model runs without it and supports it.

    A base in bfloat16 on a CPU does. Plain products are faster there for whole texts, but for a single position they
    copy all keys and values for every query head.
    """
    model = cast(Any, base.model)
    eager = model.config._attn_implementation == "eager"
    supported = eager and model._supports_sdpa and model._can_set_attn_implementation()
    return SdpaAttention() if supported else Unchanged()
