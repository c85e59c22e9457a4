"""Sites: where in a frozen model adapters work, reached by forward hooks.

A hook leaves the model's classes, names and tensors as they are: its state dict stays the plain one, and when the last
adapter leaves a site, so does the hook.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, final

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tunedeck.core.compat.torch import tensor_version
from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import say
from tunedeck.methods.routing import Router, Segment

T = TypeVar("T")
Layer: TypeAlias = Any
"""An nn.Module, or its replacement in an adapter for inference only, see `Built.frozen_layer`."""


@final
class RowDispatch:
    """Which layer the rows of the running batch go through at one site.

    `parts` are slices of rows and the layer for each, None where the rows are left to the base. `active` are the parts
    from the first to the last that have a layer, `layers` their layers and `rows` their rows. A single part is the
    slice of all rows, so that it fits a batch of any size.
    """

    def __init__(self, parts: Sequence[tuple[slice, Layer | None]]) -> None:
        self.parts = parts if len(parts) > 1 else [(slice(None), parts[0][1])]
        changed = [number for number, (_, layer) in enumerate(parts) if layer is not None]
        self.active = self.parts[changed[0] : changed[-1] + 1] if changed else []
        self.layers = [layer for _, layer in self.active]
        self.rows = slice(self.active[0][0].start, self.active[-1][0].stop) if changed else slice(0)
        self._trainable: list[torch.Tensor] | None = None
        self._cached: dict[str, tuple[object, object]] = {}

    def active_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the active rows of a tensor (batch, ...); the tensor itself, whose gradient is not copied, for all."""
        return tensor if self.rows == slice(None) else tensor[self.rows]

    def cached(self, key: object, make: Callable[[], T], slot: str = "") -> T:
        """Cache `make()` until `key` or a trainable parameter changes; never while gradients are recorded.

        Each slot holds one value. Frozen parameters are assumed constant, because checking them costs as much as a
        small matrix product.
        """
        if torch.is_grad_enabled():
            return make()
        if self._trainable is None:
            parameters = [p for layer in self.layers if isinstance(layer, nn.Module) for p in layer.parameters()]
            self._trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if any(tensor.is_inference() for tensor in self._trainable):
            return make()
        state = (key, [(tensor.data_ptr(), tensor_version(tensor)) for tensor in self._trainable])
        known = self._cached.get(slot)
        if known is None or known[0] != state:
            known = self._cached[slot] = (state, make())
        return known[1]  # type: ignore[return-value]

    def stacked(self, read: Callable[[Layer], torch.Tensor], absent: float = 0.0) -> torch.Tensor:
        """Return a tensor of each layer for each active row, (rows, *its shape), `absent` where there is no layer.

        Smaller ones are filled up with zeros to the largest.
        """
        tensors = [None if layer is None else read(layer) for layer in self.layers]
        known = [tensor for tensor in tensors if tensor is not None]
        if len(known) < len(tensors) or len({tensor.shape for tensor in known}) > 1:
            largest = torch.Size(map(max, zip(*(tensor.shape for tensor in known), strict=True)))
            nothing = known[0].new_full(largest, absent)
            known = [nothing if tensor is None else _filled(tensor, largest) for tensor in tensors]
        return self.spread(torch.stack(known))

    def scaled(self, tensor: torch.Tensor, read: Callable[[Layer], float]) -> torch.Tensor:
        """Return a tensor (rows, ...), times a number of each layer."""
        numbers = [1.0 if layer is None else read(layer) for layer in self.layers]
        if len(set(numbers)) == 1:
            return tensor if numbers[0] == 1 else tensor * numbers[0]
        own = self.spread(torch.tensor(numbers, device=tensor.device))
        return tensor * own.view(-1, *[1] * (tensor.dim() - 1))

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """Repeat a tensor (layers, ...) for each active row, (rows, ...); one layer for all rows stays (1, ...)."""
        if len(self.parts) == 1:
            return tensor
        counts = [rows.stop - rows.start for rows, _ in self.active]
        return tensor if max(counts) == 1 else tensor.repeat_interleave(torch.tensor(counts, device=tensor.device), 0)


Join: TypeAlias = Callable[
    [Sequence[RowDispatch | None], Sequence[int]], Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
]
"""Return a function that changes the outputs of several linear layers, side by side, at once: (x, output) to output.

It gets what the running batch has at each layer, and the size of each output; None where it cannot.
"""


def unchanged(_: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the output of layers at which the running batch has nothing."""
    return output


@final
@dataclass(frozen=True, slots=True)
class LinearHook:
    """A linear layer's forward hook; `join` does at once what the hooks of several layers with the same input do."""

    dispatch: Callable[[], RowDispatch | None]
    change: Callable[[nn.Module, torch.Tensor, torch.Tensor, RowDispatch], torch.Tensor]
    """(linear, x, output, dispatch) to the changed output, (batch, ..., out)."""
    join: Join
    sequence_first: bool

    def __call__(self, linear: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """Return the output with the change of each row."""
        now = self.dispatch()
        if now is None:
            return output
        if not self.sequence_first:
            return self.change(linear, args[0], output, now)
        return self.change(linear, args[0].transpose(0, 1), output.transpose(0, 1), now).transpose(0, 1)


class Site(Protocol):
    """Where a layer works and what it does there; equal sites share one set of hooks."""

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hooks; `dispatch()` is None when no row of the running batch has a layer here."""
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """One adapter's layer at one site."""

    site: Site
    layer: Layer


@final
class SiteRegistry:
    """All hooked sites of one model. Attaching costs the same however many adapters are there."""

    def __init__(self, model: nn.Module, router: Router) -> None:
        self._model = model
        self._router = router
        self._layers: dict[Site, dict[str, Layer]] = {}
        self._handles: dict[Site, Sequence[RemovableHandle]] = {}
        # Two of each site, for prompts are computed in chunks between the steps of a decoding batch.
        self._dispatches: dict[Site, deque[tuple[tuple[Segment, ...], RowDispatch]]] = {}
        self.changes = 0
        """How often layers have come or gone."""

    def attach(self, adapter: str, placements: Mapping[str, Placement]) -> None:
        """Put an adapter's layers at their sites."""
        self.changes += 1
        for placement in placements.values():
            site = placement.site
            if site not in self._layers:
                self._layers[site] = {}
                self._handles[site] = site.install(self._model, partial(self._dispatch_at, site))
            self._layers[site][adapter] = placement.layer
            self._dispatches.pop(site, None)

    def detach(self, adapter: str, placements: Mapping[str, Placement]) -> None:
        """Take an adapter's layers away; a site without layers loses its hooks."""
        self.changes += 1
        for placement in placements.values():
            site = placement.site
            del self._layers[site][adapter]
            self._dispatches.pop(site, None)
            if not self._layers[site]:
                del self._layers[site]
                for handle in self._handles.pop(site):
                    handle.remove()

    def _dispatch_at(self, site: Site) -> RowDispatch | None:
        segments = self._router.segments
        known = self._dispatches.setdefault(site, deque(maxlen=2))
        for routed, dispatch in known:
            if routed is segments:
                return dispatch
        layers = self._layers[site]
        parts = [(s.rows, layers.get(s.adapter) if s.adapter is not None else None) for s in segments]
        if all(layer is None for _, layer in parts):
            return None
        known.append((segments, dispatch := RowDispatch(parts)))
        return dispatch


def _filled(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    missing = [n for want, have in zip(reversed(shape), reversed(tensor.shape), strict=True) for n in (0, want - have)]
    return F.pad(tensor, missing) if any(missing) else tensor


def map_rows(
    output: torch.Tensor, dispatch: RowDispatch, change: Callable[[Layer, slice], torch.Tensor]
) -> torch.Tensor:
    """Return `output` with `change(layer, rows)` in place of the rows that have a layer."""
    check_rows(output, dispatch)
    parts = [output[rows] if layer is None else change(layer, rows) for rows, layer in dispatch.parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def map_active_rows(
    output: torch.Tensor,
    dispatch: RowDispatch,
    dim: int,
    change: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
) -> torch.Tensor:
    """Return `output` with `change(its, out)` in place of the active rows: `its` is (rows, positions, size), or (all,
    size) for `dim` 2.

    Where no gradient is wanted, `out` is `its` and the change is written into `output` itself.
    """
    own, size = dispatch.active_rows(output), output.shape[-1]
    its = own.reshape(-1, size) if dim == 2 else own.reshape(len(own), -1, size)
    if not torch.is_grad_enabled() and own.is_contiguous():
        change(its, its)
        return output
    return with_active_rows(output, dispatch, change(its, None).view_as(own))


def row_vectors(vectors: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Reshape vectors (rows, size), or (1, size) for all rows, to multiply `like` (batch, ..., size)."""
    return vectors.view(-1, *[1] * (like.dim() - 2), like.shape[-1])


def with_active_rows(tensor: torch.Tensor, dispatch: RowDispatch, changed: torch.Tensor) -> torch.Tensor:
    """Return `tensor` (batch, ...) with `changed` in place of the active rows."""
    if len(changed) == len(tensor):
        return changed
    return torch.cat([tensor[: dispatch.rows.start], changed, tensor[dispatch.rows.stop :]])


def dtype_of_products(output: torch.Tensor) -> torch.dtype:
    """Return the precision in which a batch of small products for `output` (batch, ..., size) is fastest.

    A step of decoding on a CPU has one position a row: there a product in bfloat16 takes four times as long to start as
    in float32.
    """
    few = output.device.type == "cpu" and output[0].numel() == output.shape[-1] and not torch.is_grad_enabled()
    return torch.float32 if few else output.dtype


def add_rounded(tensor: torch.Tensor, change: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Return the sum in the precision of `tensor`, rounded once, and written to `out` where there is one."""
    return torch.add(tensor, change).to(tensor.dtype) if out is None else torch.add(tensor, change, out=out)


def check_rows(tensor: torch.Tensor, dispatch: RowDispatch) -> None:
    """Raise TargetError when a tensor's first dimension is not the batch, as inside a mixture of experts."""
    rows = dispatch.parts[-1][0].stop
    if rows is not None and tensor.shape[0] != rows:
        raise TargetError(
            say(
                "a module here works on tensors of shape {shape}, not on {rows} rows; it cannot be used in a "
                "mixed batch",
                shape=tuple(tensor.shape),
                rows=rows,
            )
        )


def first_tensor(args: tuple[object, ...], kwargs: Mapping[str, object]) -> torch.Tensor:
    """Return the hidden states a module was called with: its first argument, by position or by name."""
    value = args[0] if args else next(iter(kwargs.values()))
    assert isinstance(value, torch.Tensor)
    return value
