"""The kernel for the attention of one new position to all that stand before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any


def of_one_position(model: Any) -> Callable[[], AbstractContextManager[None]]:
    """Blocks in which the model uses torch's own kernel, if it works without it and can.

    A base in bfloat16 on a CPU does: for whole texts plain products are faster there, for one position they copy all keys and
    values for every query head.
    """
    config = model.config
    if config._attn_implementation != "eager" or not model._supports_sdpa or not model._can_set_attn_implementation():
        return nullcontext

    @contextmanager
    def switched() -> Iterator[None]:
        config._attn_implementation = "sdpa"
        try:
            yield
        finally:
            config._attn_implementation = "eager"

    return switched
