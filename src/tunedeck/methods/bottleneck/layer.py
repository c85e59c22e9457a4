"""The bottleneck layer and its site: h becomes h + s·A(z), where A(z) = W_up f(W_down z + b_down) + b_up.

h is a sub-block's output before it joins the residual stream, x the stream that entered the sub-block. The kinds differ
in z alone (adapters 1.3.0, methods/modeling.py): double_seq_bn reads h, par_bn reads x, seq_bn reads the sum h + x, and
on a post-LN encoder that sum after the block's own LayerNorm.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, final

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tunedeck.core.errors import ArchitectureError
from tunedeck.core.i18n import listing, say
from tunedeck.core.model_spec import BlockSites, ModelSpec, known_model_types
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.bottleneck.config import BottleneckConfig
from tunedeck.methods.sites import (
    Placement,
    RowDispatch,
    add_rounded,
    check_rows,
    dtype_of_products,
    first_tensor,
    map_active_rows,
    map_rows,
)

# transformers' activations under AdapterHub's names (adapters 1.3.0, methods/modeling.py, class
# Activation_Function_Class).
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "swish": F.silu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_orig": F.gelu,
    "gelu_new": lambda z: F.gelu(z, approximate="tanh"),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leakyrelu": F.leaky_relu,
    "linear": lambda z: z,
}

Stacked = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@final
class BottleneckLayer(nn.Module):
    """down (d, H), up (H, d) and their biases, float32; `scaling` a parameter when it is learned."""

    def __init__(self, hidden_size: int, width: int, config: BottleneckConfig) -> None:
        super().__init__()
        assert config.non_linearity is not None
        self.down = nn.Linear(hidden_size, width)
        self.up = nn.Linear(width, hidden_size)
        self.activation = ACTIVATIONS[config.non_linearity]
        self.dropout = config.dropout
        self.fixed_scaling = 1.0
        if isinstance(config.scaling, str):
            self.scaling = nn.Parameter(torch.ones(1 if config.scaling == "learned" else hidden_size))
        else:
            assert config.scaling is not None
            self.fixed_scaling = float(config.scaling)
            self.register_parameter("scaling", None)
        if config.init_weights == "mam_adapter":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            nn.init.zeros_(self.up.weight)
        else:
            nn.init.normal_(self.down.weight, std=0.02)
            nn.init.normal_(self.up.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """s·A(z), (batch, seq, hidden), in the precision of z."""
        if self.dropout > 0:
            z = F.dropout(z, self.dropout, self.training)
        z = self.activation(F.linear(z, self.down.weight.to(z.dtype), self.down.bias.to(z.dtype)))
        z = F.linear(z, self.up.weight.to(z.dtype), self.up.bias.to(z.dtype))
        return z * (self.fixed_scaling if self.scaling is None else self.scaling.to(z.dtype))


@dataclass(frozen=True, slots=True)
class BlockOutput:
    """The output h of a sub-block. `tap` is where its residual input x can be read, `norm` the post-LN block's
    LayerNorm.
    """

    path: str
    reads_h: bool
    tap: str | None
    norm: str | None

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register hooks that note the residual stream and add the adapters' output to the sub-block's."""
        residual: deque[torch.Tensor] = deque(maxlen=2)  # two, for a batch may run in the middle of another
        norm = model.get_submodule(self.norm) if self.norm is not None else None

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if dispatch() is not None:
                residual.append(first_tensor(args, kwargs))

        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
            now = dispatch()
            if now is None:
                return output
            h = output[0] if isinstance(output, tuple) else output
            x = residual.pop() if self.tap is not None else None

            def read(rows: slice) -> torch.Tensor:
                z: torch.Tensor = h[rows] if self.reads_h else cast(torch.Tensor, x)[rows]
                z = z + x[rows] if self.reads_h and x is not None else z
                # Past the norm's hooks, for z has some of the batch's rows only.
                return z if norm is None else cast(torch.Tensor, norm.forward(z))

            if can_batch(now):
                check_rows(h, now)
                changed = map_active_rows(h, now, 3, partial(batched_forward, read(now.rows), now))
            else:
                changed = map_rows(h, now, lambda layer, rows: h[rows] + layer(read(rows)))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handles: list[RemovableHandle] = []
        if self.tap is not None:
            handles.append(model.get_submodule(self.tap).register_forward_pre_hook(keep, with_kwargs=True))
        handles.append(model.get_submodule(self.path).register_forward_hook(hook))
        return handles


def can_batch(dispatch: RowDispatch) -> bool:
    """Tell whether `batched_forward` can replace the layers: all of one activation and none in training, in a mixed
    batch.
    """
    known = [layer for layer in _layers(dispatch) if layer is not None]
    mixed, alike = len(dispatch.parts) > 1, len({id(layer.activation) for layer in known}) == 1
    return mixed and alike and not torch.is_grad_enabled() and not any(layer.training for layer in known)


def batched_forward(z: torch.Tensor, dispatch: RowDispatch, h: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Return h + s·A(z) of the active rows, (rows, positions, hidden), each by its adapter; h for the base."""
    dtype = dtype_of_products(h)
    down, down_bias, up, up_bias = dispatch.cached(dtype, partial(_stacked, dispatch, dtype))
    activation = next(layer.activation for layer in _layers(dispatch) if layer is not None)
    inner = torch.baddbmm(down_bias, z.reshape(h.shape).to(dtype), down)
    return add_rounded(h, torch.baddbmm(up_bias, activation(inner), up), out)


def _stacked(dispatch: RowDispatch, dtype: torch.dtype) -> Stacked:
    """Wᵀ_down (rows, hidden, d), b_down (rows, 1, d), s·Wᵀ_up (rows, d, hidden), s·b_up (rows, 1, hidden), zeros up to
    the largest d.
    """

    def of(read: Callable[[BottleneckLayer], torch.Tensor]) -> torch.Tensor:
        return dispatch.stacked(lambda layer: read(cast(BottleneckLayer, layer)))

    def learned(layer: BottleneckLayer) -> torch.Tensor:
        return up_bias.new_ones(()) if layer.scaling is None else layer.scaling

    def fixed(layer: nn.Module) -> float:
        return cast(BottleneckLayer, layer).fixed_scaling

    up, up_bias = (
        dispatch.scaled(of(read), fixed) for read in (lambda layer: layer.up.weight, lambda layer: layer.up.bias)
    )
    if any(layer is not None and layer.scaling is not None for layer in _layers(dispatch)):
        scaling = of(lambda layer: learned(layer).expand(up_bias.shape[-1]))
        up, up_bias = up * scaling[:, :, None], up_bias * scaling
    down, down_bias = of(lambda layer: layer.down.weight), of(lambda layer: layer.down.bias)
    down, down_bias, up, up_bias = (tensor.to(dtype) for tensor in (down, down_bias[:, None], up, up_bias[:, None]))
    return down.transpose(1, 2).contiguous(), down_bias, up.transpose(1, 2), up_bias


def _layers(dispatch: RowDispatch) -> Sequence[BottleneckLayer | None]:
    return cast("Sequence[BottleneckLayer | None]", dispatch.layers)


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of down- and up-projection, biases and a learned scaling after every chosen sub-block."""
    assert isinstance(config, BottleneckConfig)
    spec = _spec(base)
    hidden = spec.hidden_size
    scaling = {"learned": (1,), "channel": (hidden,)}.get(str(config.scaling))
    found: dict[str, tuple[int, ...]] = {}
    for layer, block, _ in config.blocks(spec):
        name, width = f"{layer}.{block}", config.size(layer, hidden)
        found |= {f"{name}.down.weight": (width, hidden), f"{name}.down.bias": (width,)}
        found |= {f"{name}.up.weight": (hidden, width), f"{name}.up.bias": (hidden,)}
        if scaling is not None:
            found[f"{name}.scaling"] = scaling
    return found


def build(base: Base, config: MethodConfig) -> Built:
    """Return a bottleneck layer after every chosen sub-block, named `<layer>.attention` or `<layer>.ffn`."""
    assert isinstance(config, BottleneckConfig)
    spec = _spec(base)
    return Built(
        placements={
            f"{layer}.{block}": Placement(
                _site(base, layer, sites, config),
                BottleneckLayer(spec.hidden_size, config.size(layer, spec.hidden_size), config),
            )
            for layer, block, sites in config.blocks(spec)
        }
    )


def _spec(base: Base) -> ModelSpec:
    if base.spec is None:
        raise ArchitectureError(
            say(
                "bottleneck adapters need a known architecture (known: {known}); use lora here",
                known=listing(known_model_types()),
            )
        )
    return base.spec


def _site(base: Base, layer: int, sites: BlockSites, config: BottleneckConfig) -> BlockOutput:
    assert base.spec is not None
    layers = base.spec.layers_path(base.prefix)

    def path(inside: str) -> str:
        return f"{layers}.{layer}.{inside}"

    reads_sum = bool(config.original_ln_before) and not config.is_parallel
    return BlockOutput(
        path=path(sites.output),
        reads_h=not config.is_parallel,
        tap=path(sites.input) if config.is_parallel or reads_sum else None,
        norm=path(sites.norm) if reads_sum and sites.norm is not None else None,
    )
