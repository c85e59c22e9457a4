"""Cross-entropy over a large vocabulary without ever holding all logits.

The loss is computed a few positions at a time, and its gradient by the hidden states with it, as Liger and Cut
Cross-Entropy do (arXiv 2410.10989, 2411.09009). The output layer is frozen, so that nothing else of it is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

CHUNK_BYTES = 32 * 2**20
"""Logits of a chunk, in float32."""


class _FrozenOutputLoss(torch.autograd.Function):
    """Mean cross-entropy of `hidden` (n, hidden) times `weight` (vocab, hidden), frozen, against `targets` (n,)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = max(1, CHUNK_BYTES // (4 * len(weight)))
        total = hidden.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), rows):
            part, wanted = hidden[start : start + rows], targets[start : start + rows, None]
            logits = F.linear(part, weight).float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            total += (normaliser - logits.gather(-1, wanted)).sum()
            if not ctx.needs_input_grad[0]:
                continue
            chances = logits.sub_(normaliser).exp_()
            chances.scatter_add_(-1, wanted, chances.new_full(wanted.shape, -1.0))
            gradient[start : start + rows] = (chances.to(hidden.dtype) @ weight) / len(hidden)
        ctx.save_for_backward(gradient)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None


def frozen_output_loss(hidden: torch.Tensor, output_layer: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """Return mean cross-entropy, float32, of the logits that a frozen output layer without a bias gives.

    `hidden` (n, hidden) has a gradient; `targets` (n,) are token ids.
    """
    loss: torch.Tensor = _FrozenOutputLoss.apply(hidden, output_layer.weight, targets)  # type: ignore[no-untyped-call]
    return loss
