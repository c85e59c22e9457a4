"""Run the output layer on the positions that are needed: a vocabulary of logits for each of the others is most of a
step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from torch import nn

from tunedeck.models.load import LoadedBase


@final
class OutputPositions:
    """Give the output layer the hidden states of `chosen` positions (batch, seq) only, as (1, chosen, hidden).

    `states` (chosen, hidden) are those of the last forward pass. With `most` the layer itself computes the first
    `most` of them only.
    """

    def __init__(self, chosen: torch.Tensor, most: int | None = None) -> None:
        self._chosen, self._most = chosen, most
        self.states: torch.Tensor | None = None

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Select the positions while the block runs."""
        handle = cast(Any, base.model).get_output_embeddings().register_forward_pre_hook(self._select)
        try:
            yield
        finally:
            handle.remove()

    def _select(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.states = args[0][self._chosen]
        return (self.states[None, : self._most], *args[1:])
