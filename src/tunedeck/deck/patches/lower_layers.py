"""Run the layers below the first trained one once: they give the same hidden states for a text in every epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast, final

import psutil
import torch
from torch import nn

from tunedeck.deck.adapter import Adapter
from tunedeck.deck.patches.base import Patch, Unchanged, replaced_forward
from tunedeck.methods.packed_embedding import embedding_shape
from tunedeck.models.load import LoadedBase

MEMORY_SHARE = 0.25
"""Share of the free memory that kept states may take; where they would take more, nothing is kept."""


@final
class LowerLayers:
    """Keeps the hidden states that enter the first trained layer, for each training example.

    Exact, for the base is frozen and in eval mode. Useful for adapters in the top layers and for a head only; does
    nothing where the first layer is trained, virtual tokens come before the texts, or the architecture is not known.
    """

    def __init__(self, base: LoadedBase, adapter: Adapter | None, lengths: Sequence[int]) -> None:
        self._states: dict[int, torch.Tensor] = {}
        self._tuples = False
        self._skipped = 0 if adapter is None else first_trained_layer(base, adapter)
        _, hidden = embedding_shape(cast(Any, base.model).get_input_embeddings())
        device = next(base.model.parameters()).device
        if sum(lengths) * hidden * base.dtype.itemsize > MEMORY_SHARE * free_bytes(device):
            self._skipped = 0
        self._lengths = lengths

    @property
    def keeps(self) -> bool:
        """Tell whether anything is kept."""
        return self._skipped > 0

    def patch(self, rows: Sequence[int]) -> Patch:
        """Return the patch for one forward pass over these examples, one to a row of the batch.

        The pass starts above the lower layers where the states of all rows are known; else it keeps them.
        """
        if not self._skipped:
            return Unchanged()
        known = all(row in self._states for row in rows)
        return _Skip(self, rows) if known else _Keep(self, rows)

    def lower(self, base: LoadedBase) -> list[nn.Module]:
        """Return the layers that need to run once only."""
        assert base.layers is not None
        return list(base.layers)[: self._skipped]

    def keep(self, rows: Sequence[int], output: Any) -> None:
        """Keep what the last of the lower layers has given for these examples."""
        self._tuples = isinstance(output, tuple)
        hidden = output[0] if self._tuples else output
        for row, states in zip(rows, hidden.detach(), strict=True):
            self._states[row] = states[: self._lengths[row]].clone()

    def kept(self, rows: Sequence[int], width: int) -> torch.Tensor:
        """Return what is kept of these examples, (rows, width, hidden), or (rows, 1, hidden) where one position is."""
        states = nn.utils.rnn.pad_sequence([self._states[row] for row in rows], batch_first=True)
        missing = width - states.shape[1] if states.shape[1] > 1 else 0
        return nn.functional.pad(states, (0, 0, 0, missing))

    def output(self, hidden: torch.Tensor) -> Any:
        """Return hidden states in the form in which a layer gives them."""
        return (hidden,) if self._tuples else hidden


@final
@dataclass(frozen=True, slots=True)
class _Keep:
    cache: LowerLayers
    rows: Sequence[int]

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.cache.keep(self.rows, output)

        handle = self.cache.lower(base)[-1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()


@final
@dataclass(frozen=True, slots=True)
class _Skip:
    cache: LowerLayers
    rows: Sequence[int]

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Let the lower layers pass on what they are given, the last of them what is kept."""

        def pass_on(hidden: torch.Tensor, *_: Any, **__: Any) -> Any:
            return self.cache.output(hidden)

        def pass_kept(hidden: torch.Tensor, *_: Any, **__: Any) -> Any:
            return self.cache.output(self.cache.kept(self.rows, hidden.shape[1]))

        *others, last = self.cache.lower(base)
        with ExitStack() as stack:
            for layer in others:
                stack.enter_context(replaced_forward(layer, lambda _: pass_on))
            stack.enter_context(replaced_forward(last, lambda _: pass_kept))
            yield


def free_bytes(device: torch.device) -> int:
    """Return what is free of the memory that tensors on this device take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def first_trained_layer(base: LoadedBase, adapter: Adapter) -> int:
    """Return how many layers at the bottom have nothing of the adapter in them; 0 where that is not known."""
    if adapter.built.virtual_tokens or base.spec is None or base.spec.sequence_first or base.layers is None:
        return 0
    below = base.spec.embedding.rpartition(".")[0]
    start = f"{base.prefix}.{below}.".lstrip(".")
    if below and any(name.startswith(start) for name in adapter.built.placements):
        return 0
    numbers = [re.search(r"\.(\d+)\.", f".{name}.") for name in (*adapter.built.placements, *adapter.built.weights)]
    known = [int(number[1]) for number in numbers if number]
    return min(known, default=base.spec.num_layers)
