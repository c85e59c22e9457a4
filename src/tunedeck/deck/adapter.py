"""One adapter: its settings, its layers, its head and where it comes from."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, final

import torch
from torch import nn

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.messages import listing, say
from tunedeck.deck.heads import placements_of
from tunedeck.deck.task import Task
from tunedeck.formats.manifest import Manifest
from tunedeck.methods.base import Built, MethodConfig
from tunedeck.methods.sites import Placement


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
        """The label names, None for a task without labels."""
        return self.task.labels

    def placements(self) -> dict[str, Placement]:
        """Every place where this adapter works, its head included."""
        return {**self.built.placements, **{f"head:{k}": v for k, v in placements_of(self.head).items()}}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The adapter's tensors without its head, `<layer name>.<parameter>`, detached."""
        layers = {
            f"{name}.{key}": tensor.detach()
            for name, placement in self.built.placements.items()
            for key, tensor in placement.layer.named_parameters()
        }
        return {**layers, **{name: tensor.detach() for name, tensor in self.built.weights.items()}}

    def head_tensors(self) -> dict[str, torch.Tensor]:
        """The head's tensors, `<module path>.<parameter>`, detached."""
        return {
            f"{path}.{key}": tensor.detach()
            for path, module in self.head.items()
            for key, tensor in module.named_parameters()
        }

    def fill(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take stored tensors; AdapterFileError when one is missing, left over or of another shape."""
        own = self.tensors()
        missing, left_over = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        if missing or left_over:
            raise AdapterFileError(
                say(
                    "the adapter's tensors do not fit this base: missing {missing}; left over {left_over}",
                    missing=_some(missing),
                    left_over=_some(left_over),
                )
            )
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise AdapterFileError(
                    say(
                        "tensor {name} has the shape {got}, this base needs {expected}",
                        name=name,
                        got=tuple(tensors[name].shape),
                        expected=tuple(tensor.shape),
                    )
                )
            if not torch.isfinite(tensors[name]).all():
                raise AdapterFileError(say("tensor {name} holds values that are not finite numbers", name=name))
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def slim(self) -> None:
        """For serving: it trains no more, and its modules share their empty tables, an eighth of a small adapter's memory."""
        self.requires_grad_(False)
        for module in self.modules():
            for name, value in list(vars(module).items()):
                if not value and type(value) in _EMPTY:
                    vars(module)[name] = _EMPTY[type(value)]


@final
class _NoHooks(OrderedDict[int, Any]):
    """Stays empty."""

    def __setitem__(self, key: int, value: Any) -> None:
        raise TypeError("hooks belong on the base's modules, not on those of an adapter that is served")


_EMPTY: dict[type, object] = {OrderedDict: _NoHooks(), set: frozenset()}


def _some(names: list[str]) -> str:
    shown = listing(names[:3])
    return shown if len(names) <= 3 else say("{shown} and {count} more", shown=shown, count=len(names) - 3)
