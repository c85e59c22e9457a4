"""The attention of training steps in bfloat16 on a CPU: plain products with a backward pass that keeps and copies less.

transformers' eager attention makes a tensor of all scores four times, of which decoders keep one in float32 besides
that in bfloat16; torch's kernel takes up to four times as long in its backward pass. Here the scores, their mask and
the softmax share one tensor, and so do their gradients.
"""

from __future__ import annotations

from typing import Any, cast, final

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from tunedeck.core.compat.torch import softmax_backward_
from tunedeck.core.compat.transformers import (
    attention_of,
    can_use_sdpa,
    is_softcapped,
    register_attention,
)
from tunedeck.deck.patches.attention import RegisteredAttention
from tunedeck.deck.patches.base import Patch, Unchanged
from tunedeck.models.load import LoadedBase

_NAME = "tunedeck_training"
_SCORES_AT_ONCE = 1 << 18
"""A megabyte of float32, which stays in the cache."""


@final
class Attention(torch.autograd.Function):
    """softmax(scaling · Q Kᵀ + mask) V for query (batch, heads, seq, size), key and value (batch, key heads, positions,
    size).

    The query heads that share a key head are the rows of one product, so that no keys or values are repeated. `mask`
    is broadcast to (batch, heads, seq, positions).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        """Return (batch, heads, seq, size of a value)."""
        batch, heads, seq, _ = query.shape
        groups, positions = batch * key.shape[1], key.shape[2]
        q, k, v = (tensor.reshape(groups, -1, tensor.shape[-1]) for tensor in (query, key, value))
        scores = _scaled_product(q, k.transpose(1, 2), scaling)
        if mask is not None:
            scores.view(batch, heads, seq, positions).add_(mask)
        _softmax_(scores)
        ctx.save_for_backward(q, k, v, scores)
        cast(Any, ctx).scaling = scaling
        return torch.bmm(scores, v).view(batch, heads, seq, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of query, key and value; with P the softmax and dP = dO Vᵀ, that of the scores is
        P ⊙ (dP - rowsum(dP ⊙ P)).

        Those of key and value are computed transposed: the kernels would copy a transposed P, which is larger.
        """
        q, k, v, scores = ctx.saved_tensors
        of_query, of_key, of_value = ctx.needs_input_grad[:3]
        batch, heads, seq, _ = gradient.shape
        own = gradient.reshape(len(q), -1, v.shape[-1])
        dq = dk = dv = None
        if of_value:
            dv = torch.bmm(own.transpose(1, 2), scores).transpose(1, 2).reshape(batch, -1, *v.shape[1:])
        if of_query or of_key:
            changed = softmax_backward_(torch.bmm(own, v.transpose(1, 2)), scores)
            if of_query:
                dq = _scaled_product(changed, k, ctx.scaling).view(batch, heads, seq, -1)
            if of_key:
                dk = _scaled_product(q.transpose(1, 2), changed, ctx.scaling)
                dk = dk.transpose(1, 2).reshape(batch, -1, *k.shape[1:])
        return dq, dk, dv, None, None


def _softmax_(scores: torch.Tensor) -> None:
    """Replace scores (groups, rows, positions) by their softmax.

    That of bfloat16 is computed in float32, part by part: torch's kernel for bfloat16 takes twice as long.
    """
    if scores.dtype == torch.bfloat16:
        for part in torch.split(scores, max(1, _SCORES_AT_ONCE // scores[0].numel())):
            part.copy_(torch.softmax(part, -1, dtype=torch.float32))
    else:
        torch.softmax(scores, -1, out=scores)


def _scaled_product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return scaling · left right of two batches of matrices, rounded once."""
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scaling)


def training_products(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return the `Attention` as (batch, seq, heads, size), in the form of transformers' functions."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    output: torch.Tensor = cast(Any, Attention).apply(query, key, value, attention_mask, scaling)
    return output.transpose(1, 2).contiguous(), None


def training_attention(base: LoadedBase) -> Patch:
    """Return the patch for a training run: `training_products` where the model would compute attention by plain
    products.
    """
    model = base.model
    on_cpu = next(model.parameters()).device.type == "cpu"
    plain = attention_of(model) == "eager" and can_use_sdpa(model) and not is_softcapped(model)
    if not on_cpu or not plain or model.training:  # in train mode a base drops out
        return Unchanged()
    register_attention(_NAME, training_products)
    return RegisteredAttention(_NAME)
