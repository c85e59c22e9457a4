"""The layers below the first trained one give the same for a text in every epoch: they are run once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import psutil
import torch
from torch import nn

from tunedeck.deck.adapter import Adapter
from tunedeck.models.load import LoadedBase

MEMORY_SHARE = 0.25
"""Share of the free memory that kept states may take; where they would take more, nothing is kept."""


@final
class LowerLayers:
    """Keeps the hidden states that enter the first trained layer, for each training example.

    Exact, for the base is frozen and in eval mode. Of use to adapters in the top layers and to the head alone; does nothing where the
    first layer is trained, virtual tokens stand before the texts, or the architecture is not known.
    """

    def __init__(self, base: LoadedBase, adapter: Adapter | None, lengths: Sequence[int]) -> None:
        self._kept: dict[int, torch.Tensor] = {}
        self._tuples = False
        count = 0 if adapter is None else first_trained_layer(base, adapter)
        self._skipped: list[nn.Module] = list(_layers(base))[:count] if count else []
        weight: torch.Tensor = base.model.get_input_embeddings().weight  # type: ignore[operator]
        size = weight.shape[1] * base.dtype.itemsize
        if sum(lengths) * size > MEMORY_SHARE * free_bytes(weight.device):
            self._skipped = []
        self._lengths = lengths

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return bool(self._skipped)

    @contextmanager
    def of(self, rows: Sequence[int]) -> Iterator[None]:
        """Inside the block one forward pass over these examples, one to a row of the batch, starts above what is kept."""
        if not self._skipped:
            yield
        elif all(row in self._kept for row in rows):
            with self._passing(rows):
                yield
        else:
            handle = self._skipped[-1].register_forward_hook(self._keeper(rows))
            try:
                yield
            finally:
                handle.remove()

    def _keeper(self, rows: Sequence[int]) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._tuples = isinstance(output, tuple)
            hidden = output[0] if self._tuples else output
            for row, states in zip(rows, hidden.detach(), strict=True):
                self._kept[row] = states[: self._lengths[row]].clone()

        return keep

    @contextmanager
    def _passing(self, rows: Sequence[int]) -> Iterator[None]:
        """The skipped layers hand on what they are given, the last of them what is kept."""

        def hand_on(hidden: torch.Tensor, *_: Any, **__: Any) -> Any:
            return (hidden,) if self._tuples else hidden

        def hand_on_kept(hidden: torch.Tensor, *_: Any, **__: Any) -> Any:
            kept = nn.utils.rnn.pad_sequence([self._kept[row] for row in rows], batch_first=True)
            missing = (
                hidden.shape[1] - kept.shape[1] if kept.shape[1] > 1 else 0
            )  # one position where one alone is read
            return hand_on(nn.functional.pad(kept, (0, 0, 0, missing)))

        before = [vars(layer).pop("forward", None) for layer in self._skipped]  # checkpointing's, where there is one
        for layer in self._skipped:
            layer.forward = hand_on
        self._skipped[-1].forward = hand_on_kept
        try:
            yield
        finally:
            for layer, forward in zip(self._skipped, before, strict=True):
                del layer.forward  # the class's own again
                if forward is not None:
                    layer.forward = forward


def free_bytes(device: torch.device) -> int:
    """What is free of the memory that tensors on this device take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def first_trained_layer(base: LoadedBase, adapter: Adapter) -> int:
    """How many layers at the bottom have nothing of the adapter in them; 0 where that is not known."""
    if adapter.built.virtual_tokens or base.spec is None or base.spec.sequence_first or not base.prefix:
        return 0
    numbers = [re.search(r"\.(\d+)\.", f".{name}.") for name in (*adapter.built.placements, *adapter.built.weights)]
    known = [int(number[1]) for number in numbers if number]
    return min(known, default=base.spec.num_layers)


def _layers(base: LoadedBase) -> nn.ModuleList:
    spec = base.spec
    assert spec is not None
    found = base.model.get_submodule(f"{base.prefix}.{spec.layers}")
    assert isinstance(found, nn.ModuleList)
    return found
