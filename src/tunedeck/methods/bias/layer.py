"""Trained biases and norms: y = W x + b' in place of W x + b, and a norm with the adapter's weight and bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.bias.config import BiasConfig
from tunedeck.methods.linears import layer_pattern, linears_in_layers
from tunedeck.methods.sites import Placement, RowDispatch, check_rows, map_rows, row_vectors, with_active_rows


@final
class VectorsLayer(nn.Module):
    """The adapter's copies of a module's vectors by their names, `weight` or `bias`, float32."""

    def __init__(self, vectors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, vector in vectors.items():
            self.register_parameter(name, nn.Parameter(vector.detach().to(torch.float32, copy=True)))


@dataclass(frozen=True, slots=True)
class LinearBias:
    """The bias of the linear layer at `path`, whose output is (batch, seq, out) or, with `sequence_first`, (seq, batch,
    out).
    """

    path: str
    sequence_first: bool = False

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that adds the difference of the two biases to the active rows."""
        linear = model.get_submodule(self.path)

        def shifted(output: torch.Tensor, now: RowDispatch) -> torch.Tensor:
            check_rows(output, now)
            base = cast(torch.Tensor, linear.bias).float()
            shifts = now.cached(None, lambda: now.stacked(lambda layer: layer.bias - base))
            changed = now.active_rows(output) + row_vectors(shifts, output)
            return with_active_rows(output, now, changed.to(output.dtype))

        def hook(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            now = dispatch()
            if now is None:
                return output
            return shifted(output.transpose(0, 1), now).transpose(0, 1) if self.sequence_first else shifted(output, now)

        return [linear.register_forward_hook(hook)]


@dataclass(frozen=True, slots=True)
class NormVectors:
    """The norm at `path`, whose input is (batch, seq, ...) or, with `sequence_first`, (seq, batch, ...)."""

    path: str
    sequence_first: bool = False

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that computes the norm again for the active rows."""
        norm = model.get_submodule(self.path)
        plain = _WithoutHooks(norm)

        def hook(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            now = dispatch()
            if now is None:
                return output
            x = args[0].transpose(0, 1) if self.sequence_first else args[0]

            def own(layer: nn.Module, rows: slice) -> torch.Tensor:
                vectors = {f"norm.{name}": v.to(norm.get_parameter(name)) for name, v in layer.named_parameters()}
                return cast(torch.Tensor, functional_call(plain, vectors, (x[rows],)))

            if not self.sequence_first:
                return map_rows(output, now, own)
            return map_rows(output.transpose(0, 1), now, own).transpose(0, 1)

        return [norm.register_forward_hook(hook)]


@final
class _WithoutHooks(nn.Module):
    """A norm whose hooks are not called: those of other sites have seen the whole batch already."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.norm.forward(x))


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a layer norm of any class, with a vector for its weight."""
    vectors = list(module.parameters())
    return type(module).__name__.endswith("Norm") and bool(vectors) and all(vector.dim() == 1 for vector in vectors)


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of every chosen bias, and of weight and bias of every chosen norm."""
    assert isinstance(config, BiasConfig)
    places = _places(base, config)
    return {f"{path}.{name}": tuple(v.shape) for path, vectors in places.items() for name, v in vectors.items()}


def build(base: Base, config: MethodConfig) -> Built:
    """Return copies of the chosen vectors, named by their module's path."""
    assert isinstance(config, BiasConfig)
    sequence_first = base.spec is not None and base.spec.sequence_first
    placements = {}
    for path, vectors in _places(base, config).items():
        site = NormVectors if is_norm(base.model.get_submodule(path)) else LinearBias
        placements[path] = Placement(site(path, sequence_first), VectorsLayer(vectors))
    return Built(placements=placements)


def merge(model: nn.Module, built: Built) -> None:
    """Put the trained vectors in the place of the base's, in its precision."""
    with torch.no_grad():
        for path, placement in built.placements.items():
            for name, vector in placement.layer.named_parameters():
                model.get_parameter(f"{path}.{name}").copy_(vector)


def _places(base: Base, config: BiasConfig) -> dict[str, dict[str, torch.Tensor]]:
    """Return the vectors that train by the path of their module."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    if config.vectors != "norms":
        linears = linears_in_layers(base.model, base.prefix)
        biased = [path for path in linears if base.model.get_submodule(path).bias is not None]
        found |= {path: {"bias": _vector(base, path, "bias")} for path in config.biased(biased)}
    if config.vectors != "biases":
        found |= {path: dict(base.model.get_submodule(path).named_parameters()) for path in _norms(base, config)}
    return found


def _vector(base: Base, path: str, name: str) -> torch.Tensor:
    return base.model.get_parameter(f"{path}.{name}")


def _norms(base: Base, config: BiasConfig) -> list[str]:
    """Return the norms that are meant, in model order; those outside the layers by their full path alone.

    Raises TargetError for a name that matches none, or for a model without any.
    """
    inside = layer_pattern(base.prefix)
    norms = [path for path, module in base.model.named_modules() if is_norm(module)]
    in_layers = [path for path in norms if inside.match(path)]
    if config.norm_modules is None:
        if not in_layers:
            raise TargetError(say("no norms were found in the layers of this model; use vectors: biases"))
        return in_layers
    chosen: set[str] = set()
    for name in config.norm_modules:
        meant = {path for path in in_layers if f".{path}".endswith(f".{name}")} or {p for p in norms if p == name}
        if not meant:
            known = sorted({path.rpartition(".")[2] for path in in_layers})
            raise TargetError(
                say("norm_modules: {name!r} matches no norm", name=name)
                + nearest(name, known)
                + say("; this model has: {known}", known=listing(known))
            )
        chosen |= meant
    return [path for path in norms if path in chosen]
