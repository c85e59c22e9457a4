"""One adapter: its settings, its layers, its head and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import nn

from tunedeck.deck.heads import placements_of
from tunedeck.deck.task import Task, labels_of, pooling_of
from tunedeck.formats.manifest import Manifest
from tunedeck.methods.base import Built, MethodConfig
from tunedeck.methods.sites import Placement
from tunedeck.models.load import LoadedBase
from tunedeck.models.quantize import parameter_count


@final
class Adapter(nn.Module):
    """Everything that belongs to one adapter; its parameters are the only ones that train."""

    def __init__(
        self, name: str, config: MethodConfig, task: Task, built: Built, head: dict[str, nn.Module], manifest: Manifest
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.task = task
        self.built = built
        self.head = head
        self.manifest = manifest
        self._layers = nn.ModuleList(placement.layer for placement in built.placements.values())
        self._weights = nn.ParameterList(built.weights.values())
        self._head = nn.ModuleList(head.values())

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Return the label names, None for a task without labels."""
        return labels_of(self.task)

    def placements(self) -> dict[str, Placement]:
        """Return every place where this adapter works, its head included."""
        return {
            **self.built.placements,
            **{f"head:{k}": v for k, v in placements_of(self.head, pooling_of(self.task)).items()},
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the adapter's tensors without its head, `<layer name>.<parameter>`, detached."""
        layers = {
            f"{name}.{key}": tensor.detach()
            for name, placement in self.built.placements.items()
            for key, tensor in placement.layer.named_parameters()
        }
        return {**layers, **{name: tensor.detach() for name, tensor in self.built.weights.items()}}

    def head_tensors(self) -> dict[str, torch.Tensor]:
        """Return the head's tensors, `<module path>.<parameter>`, detached."""
        return {
            f"{path}.{key}": tensor.detach()
            for path, module in self.head.items()
            for key, tensor in module.named_parameters()
        }

    def fill(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take stored tensors that `check_tensors` has passed."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def freeze_for_inference(self) -> None:
        """Let the adapter answer only, no longer train: no gradients and no dropout, its small tensors side by side in
        memory, and without the modules that only training needs.
        """
        self.eval().requires_grad_(False)
        _pack_small_parameters([*self._layers.modules(), *self._head.modules()])
        frozen = {name: replace(p, layer=self.built.frozen_layer(p.layer)) for name, p in self.built.placements.items()}
        self.built = replace(self.built, placements=frozen)
        del self._layers, self._weights, self._head


_SMALL_BYTES, _ALIGNED = 1 << 16, 16


def _pack_small_parameters(modules: list[nn.Module]) -> None:
    """Copy small parameters into one tensor for each dtype and device, each to where vector instructions like to begin.

    A tensor by itself takes a block of the heap with a header and a gap behind it.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[tuple[nn.Module, str, nn.Parameter]]] = {}
    for module in modules:
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.nbytes < _SMALL_BYTES:
                kinds.setdefault((parameter.dtype, parameter.device), []).append((module, name, parameter))
    for (dtype, device), alike in kinds.items():
        sizes = [-(-parameter.numel() // _ALIGNED) * _ALIGNED for _, _, parameter in alike]
        pieces = torch.split(torch.empty(sum(sizes), dtype=dtype, device=device), sizes)
        for (module, name, parameter), piece in zip(alike, pieces, strict=True):
            packed = piece[: parameter.numel()].view_as(parameter).copy_(parameter)
            setattr(module, name, nn.Parameter(packed, requires_grad=False))


@dataclass(frozen=True, slots=True)
class Summary:
    """Sites, parameters and bytes of one adapter."""

    name: str
    kind: str
    sites: tuple[str, ...]
    method_parameters: int
    head_parameters: int
    base_parameters: int
    tensor_bytes: int
    """Bytes of the adapter's tensors as they are saved, head included."""

    @property
    def trainable_parameters(self) -> int:
        """Return all parameters that train: the method's and the head's."""
        return self.method_parameters + self.head_parameters

    @property
    def trainable_share(self) -> float:
        """Return trainable parameters over the base's, 0 to 1 (above for more)."""
        return self.trainable_parameters / self.base_parameters


def summarise(base: LoadedBase, adapter: Adapter) -> Summary:
    """Return the summary of a loaded adapter."""
    own, head = adapter.tensors(), adapter.head_tensors()
    return Summary(
        name=adapter.name,
        kind=adapter.config.kind,
        sites=(*adapter.built.placements, *adapter.built.weights),
        method_parameters=sum(tensor.numel() for tensor in own.values()),
        head_parameters=sum(tensor.numel() for tensor in head.values()),
        base_parameters=parameter_count(base.model),
        tensor_bytes=sum(t.numel() * t.element_size() for t in (*own.values(), *head.values())),
    )
