"""Sites: places in a frozen model where adapters do their work, reached by forward hooks.

A hook leaves the model's classes, names and tensors as they are: its state dict stays the plain one, and when the last
adapter leaves a place, so does the hook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tunedeck.core.errors import TargetError
from tunedeck.core.messages import say
from tunedeck.methods.routing import Router

Work = Sequence[tuple[slice, nn.Module | None]]
"""The running batch at one place: rows, and the layer for them (None: leave these rows to the base)."""


class Place(Protocol):
    """Where a layer works and what it does there; equal places share one set of hooks."""

    def install(self, model: nn.Module, work: Callable[[], Work]) -> Sequence[RemovableHandle]:
        """Hook the place; `work()` is empty when no row of the running batch has a layer here."""
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """One adapter's layer at one place."""

    place: Place
    layer: nn.Module


@final
class Sites:
    """All hooked places of one model. Attaching costs the same however many adapters are there."""

    def __init__(self, model: nn.Module, router: Router) -> None:
        self._model = model
        self._router = router
        self._layers: dict[Place, dict[str, nn.Module]] = {}
        self._handles: dict[Place, Sequence[RemovableHandle]] = {}

    def attach(self, adapter: str, placements: Mapping[str, Placement]) -> None:
        """Put an adapter's layers at their places."""
        for placement in placements.values():
            place = placement.place
            if place not in self._layers:
                layers: dict[str, nn.Module] = {}
                self._layers[place] = layers
                self._handles[place] = place.install(self._model, partial(self._work, layers))
            self._layers[place][adapter] = placement.layer

    def detach(self, adapter: str, placements: Mapping[str, Placement]) -> None:
        """Take an adapter's layers away; a place without layers loses its hooks."""
        for placement in placements.values():
            place = placement.place
            del self._layers[place][adapter]
            if not self._layers[place]:
                del self._layers[place]
                for handle in self._handles.pop(place):
                    handle.remove()

    def _work(self, layers: Mapping[str, nn.Module]) -> Work:
        work = [(s.rows, layers.get(s.adapter) if s.adapter is not None else None) for s in self._router.segments]
        return work if any(layer is not None for _, layer in work) else ()


def change_rows(output: torch.Tensor, work: Work, change: Callable[[nn.Module, slice], torch.Tensor]) -> torch.Tensor:
    """`output` with `change(layer, rows)` in place of the rows that have a layer."""
    if len(work) == 1:
        _, layer = work[0]
        return output if layer is None else change(layer, slice(None))
    check_rows(output, work)
    return torch.cat([output[rows] if layer is None else change(layer, rows) for rows, layer in work])


def check_rows(tensor: torch.Tensor, work: Work) -> None:
    """Raise TargetError when a tensor's first dimension is not the batch, as inside a mixture of experts."""
    rows = work[-1][0].stop
    if tensor.shape[0] != rows:
        raise TargetError(
            say(
                "a module here works on tensors of shape {shape}, not on {rows} rows; it cannot be used in a mixed batch",
                shape=tuple(tensor.shape),
                rows=rows,
            )
        )


def first_tensor(args: tuple[object, ...], kwargs: Mapping[str, object]) -> torch.Tensor:
    """The hidden states a module was called with: its first argument, by position or by name."""
    value = args[0] if args else next(iter(kwargs.values()))
    assert isinstance(value, torch.Tensor)
    return value
