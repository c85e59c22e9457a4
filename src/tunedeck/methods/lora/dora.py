"""DoRA (arXiv 2402.09353): each row of W + scaling · B A has a trained length m.

y = g ⊙ (W x + scaling · B A x) + b with g = m / ‖W + scaling · B A‖ by rows. No gradient flows through the norm
(section 4.3 there), as in PEFT's lora/dora.py.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import nn

from tunedeck.methods.linears import dense_weight
from tunedeck.methods.sites import Layer, RowDispatch, row_vectors, with_active_rows


def row_lengths(linear: nn.Module, patch: torch.Tensor | None = None) -> torch.Tensor:
    """Compute ‖W‖ or ‖W + patch‖ by rows, (out,), float32, without gradients."""
    with torch.inference_mode(mode=False), torch.no_grad():
        weight = dense_weight(linear).float()
        patched = weight if patch is None else weight + patch.to(weight.device)
        return patched.square().sum(dim=1).sqrt()


def has_lengths(dispatch: RowDispatch) -> bool:
    """Tell whether any row of the running batch belongs to a DoRA."""
    return any(layer is not None and layer.is_dora for layer in dispatch.layers)


def scale_to_length(linear: nn.Module, output: torch.Tensor, dispatch: RowDispatch) -> torch.Tensor:
    """Multiply all but b by g in the active rows of `output` (batch, ..., out), W x + b + scaling · B A x."""
    g = dispatch.cached(None, partial(_gains, linear, dispatch), slot="gains")
    g = row_vectors(g, output)
    changed = dispatch.active_rows(output) * g
    if linear.bias is not None:
        changed = changed + cast(torch.Tensor, linear.bias) * (1 - g)
    return with_active_rows(output, dispatch, changed.to(output.dtype))


def _gains(linear: nn.Module, dispatch: RowDispatch) -> torch.Tensor:
    """Return g of each active row, (rows, out), float32; ones for a plain LoRA and for the base."""
    gains = [None if layer is None else _gain(linear, layer) for layer in dispatch.layers]
    ones = torch.ones_like(next(g for g in gains if g is not None))
    return dispatch.spread(torch.stack([ones if g is None else g for g in gains]))


def _gain(linear: nn.Module, layer: Layer) -> torch.Tensor | None:
    """Return m / ‖W + scaling · B A‖ by rows, (out,); None for a plain LoRA. A frozen layer keeps it."""
    lengths: torch.Tensor | None = layer.lora_magnitude_vector
    if lengths is None:
        return None
    answers_only = not isinstance(layer, nn.Module)
    if answers_only and layer.gain is not None:
        return cast(torch.Tensor, layer.gain)
    gain = lengths / row_lengths(linear, layer.delta())
    if answers_only:
        layer.gain = gain
    return gain
