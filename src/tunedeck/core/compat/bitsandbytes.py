"""Undocumented interfaces of bitsandbytes, as of 0.50: its NF4 linear layers on a CPU and what is behind a quantized
weight.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn


def import_bitsandbytes() -> Any:
    """Import the package without its advice on a kernel that we switch off."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    finally:
        logger.setLevel(level)
    return bitsandbytes


def nf4_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Return a Linear4bit of a weight (out, in), quantized to NF4 with its scales quantized as well."""
    layers = import_bitsandbytes().nn
    out_features, in_features = weight.shape
    linear = layers.Linear4bit(
        in_features, out_features, bias is not None, compute_dtype=weight.dtype, quant_type="nf4", device="meta"
    )
    # Moving the weight to a device is what quantizes it.
    linear.weight = layers.Params4bit(weight, requires_grad=False, quant_type="nf4", module=linear).to(weight.device)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    keep_backward_pass(linear)
    return cast(nn.Module, linear)


def keep_backward_pass(linear: Any) -> None:
    """Switch off a Linear4bit's kernel for bfloat16 on a CPU, which has no backward pass.

    The first batch without gradients would repack the weight in place for it: what is trained after a prediction would
    lose its gradients silently.
    """
    linear.support_avx512bf16_for_cpu = False


def is_nf4(parameter: object) -> bool:
    """Return whether a parameter is a quantized weight of bitsandbytes."""
    package = sys.modules.get("bitsandbytes")  # such a weight exists only if it was imported
    return package is not None and isinstance(parameter, package.nn.Params4bit)


def nf4_dense(weight: Any) -> torch.Tensor:
    """Return a quantized weight dequantized, (out, in), in the precision it computes in."""
    from bitsandbytes.functional import dequantize_4bit

    return cast(torch.Tensor, dequantize_4bit(weight.data, weight.quant_state))


def nf4_numel(weight: Any) -> int:
    """Return the number of a quantized weight's values before quantization."""
    return int(weight.quant_state.shape.numel())


def nf4_tensors(weight: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor that a quantized weight keeps in memory: itself, its scales and their tables."""
    state = weight.quant_state
    yield weight.data
    yield from (state.absmax, state.code)
    if state.nested:
        yield from (state.offset, state.state2.absmax, state.state2.code)
