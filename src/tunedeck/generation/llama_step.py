"""A step of decoding for models of Llama's architecture, without transformers' modules around the products.

A step computes one position of each sequence: little arithmetic, so that much of its time is Python and small tensor
operations. Modules give their weights here and, where adapters are, their hooks; what lies between two products is
written out in fewer operations. Answers are those of the modules, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast, final

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache

from tunedeck.core.compat.torch import call_with_hooks, forward_hook_count, forward_hooks, int8_product
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.attention import attention_over_buckets
from tunedeck.methods.int8 import FEW_ROWS, Int8Linear
from tunedeck.methods.linears import linear_shape
from tunedeck.methods.sites import LinearHook

_CLASSES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
_ROWS_IN_8_BITS = 4
"""Rows up to which the output layer in 8 bits is clearly faster: 2.2 instead of 4.2 ms for one row of SmolLM2-135M,
8.1 instead of 5.8 ms for 16.
"""
_Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
_Change: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def llama_step(deck: Deck) -> LlamaStep | None:
    """Return the step of a deck's model on a CPU; None for another architecture."""
    model = deck.model
    known = type(model).__name__ in _CLASSES and type(model).__module__.startswith("transformers.")
    return LlamaStep(model, deck.int8_output) if known and model.device.type == "cpu" else None


@dataclass(frozen=True, slots=True)
class _Position:
    """What all layers need to know of the positions that a step computes."""

    cos: torch.Tensor  # (rows, 1, 1, size)
    sin: torch.Tensor
    """Its first half is negated, so that halves that have changed places need no sign."""
    mask: torch.Tensor  # (rows, 1, 1, positions)
    """It is added to the scores."""
    cache: Cache


@final
class LlamaStep:
    """The forward pass of one position of each row."""

    def __init__(self, model: Any, int8_output: Int8Linear | None) -> None:
        self._embedding, self._rotary = model.model.embed_tokens, model.model.rotary_emb
        self._layers = [_Layer(layer, number) for number, layer in enumerate(model.model.layers)]
        self._norm = _norm(model.model.norm)
        self._output = _output(model.lm_head, int8_output)

    def fits(self, cache: Cache) -> bool:
        """Tell whether every layer of a cache keeps all positions."""
        return not any(layer.is_sliding for layer in cache.layers)

    def logits(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return (rows, vocab) for ids and positions (rows, 1); mask (rows, positions) includes those to compute."""
        x = self._embedding(ids)
        cos, sin = (tensor[:, :, None] for tensor in self._rotary(x, positions))
        first, second = sin.chunk(2, -1)
        width = cache.layers[0].get_mask_sizes(1)[0]
        scores = x.new_full((len(ids), 1, 1, width), torch.finfo(x.dtype).min)
        scores[:, 0, 0, : mask.shape[1]].masked_fill_(mask.bool(), 0)
        position = _Position(cos, torch.cat([-first, second], -1), scores, cache)
        for layer in self._layers:
            x = layer.forward(x, position)
        return self._output(self._norm(x))[:, 0]


@final
class _Layer:
    def __init__(self, layer: Any, number: int) -> None:
        self._number, self._attention, self._mlp = number, layer.self_attn, layer.mlp
        self._before_attention, self._before_mlp = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._qkv = _Linears(*(getattr(layer.self_attn, f"{name}_proj") for name in "qkv"))
        self._o, self._down = _Linears(layer.self_attn.o_proj), _Linears(layer.mlp.down_proj)
        self._gate_up, self._activation = _Linears(layer.mlp.gate_proj, layer.mlp.up_proj), layer.mlp.act_fn
        self._size, self._scaling = layer.self_attn.head_dim, layer.self_attn.scaling
        queries, keys, _ = (size // self._size for size in self._qkv.sizes)
        self._queries, self._rotated = queries, queries + keys

    def forward(self, x: torch.Tensor, position: _Position) -> torch.Tensor:
        attend = partial(self._attend, position)
        x = x + _hooked(self._attention, attend, self._before_attention(x), past_key_values=position.cache)
        return x + _hooked(self._mlp, self._feed_forward, self._before_mlp(x))

    def _attend(self, position: _Position, x: torch.Tensor, **_: object) -> torch.Tensor:
        heads = self._qkv(x).view(len(x), -1, 1, self._size)
        rotated = heads[:, : self._rotated]
        rotated = torch.addcmul(rotated * position.cos, rotated.roll(self._size // 2, -1), position.sin)
        new = rotated[:, self._queries :], heads[:, self._rotated :]
        keys, values = position.cache.layers[self._number].update(*new)
        queries = rotated[:, : self._queries]
        attended, _weights = attention_over_buckets(
            self._attention, queries, keys, values, position.mask, self._scaling
        )
        return self._o(attended.view(len(x), 1, -1))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_up(x).chunk(2, -1)
        return self._down(self._activation(gate) * up)


@final
class _Linears:
    """Linear layers with the same input, their outputs side by side: (rows, 1, in) to (rows, 1, sum of sizes)."""

    def __init__(self, *linears: nn.Module) -> None:
        self.sizes = [linear_shape(linear)[1] for linear in linears]
        self._linears, self._products = linears, [_product(linear) for linear in linears]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        hooks = [forward_hooks(linear) for linear in self._linears]
        add = _join(hooks, self.sizes)
        if add is None and any(hooks):
            calls = zip(self._linears, self._products, strict=True)
            return _joined([call_with_hooks(linear, product, x) for linear, product in calls])
        output = _joined([product(x) for product in self._products])
        return output if add is None else add(x, output)


def _join(hooks: Sequence[Sequence[Callable[..., Any]]], sizes: Sequence[int]) -> _Change | None:
    """Return what the hooks of linear layers with one input do together; None where there are none or they cannot."""
    joins = {hook.join if isinstance(hook, LinearHook) else None for own in hooks for hook in own}
    join = joins.pop() if len(joins) == 1 else None
    if join is None or any(len(own) > 1 for own in hooks):
        return None
    return join([cast(LinearHook, own[0]).dispatch() if own else None for own in hooks], sizes)


def _joined(outputs: list[torch.Tensor]) -> torch.Tensor:
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)


def _product(linear: nn.Module) -> _Function:
    """Return a function that computes the product of a linear layer, without its hooks."""
    if type(linear) is nn.Linear:
        return partial(F.linear, weight=linear.weight, bias=linear.bias)
    if not isinstance(linear, Int8Linear) or linear.bias is not None or not linear.multiplies_few_rows:
        return linear.forward
    weight, scale = linear.weight, cast(torch.Tensor, linear.scale)

    def product(x: torch.Tensor) -> torch.Tensor:
        if len(x) > FEW_ROWS:
            return linear.forward(x)
        return int8_product(x[:, 0], weight, scale)[:, None]

    return product


def _output(layer: nn.Module, in_8_bits: Int8Linear | None) -> _Function:
    """Return a function that computes the output layer with its hooks, from its copy in 8 bits for very few rows."""
    plain = _product(layer)
    few = plain if in_8_bits is None else _product(in_8_bits)
    return partial(_hooked, layer, lambda x: few(x) if len(x) <= _ROWS_IN_8_BITS else plain(x))


def _norm(norm: Any) -> _Function:
    """Return a function that computes a norm, with its hooks."""
    shape, weight, epsilon = tuple(norm.weight.shape), norm.weight, norm.variance_epsilon
    return partial(_hooked, norm, lambda x: torch.rms_norm(x, shape, weight, epsilon))


def _hooked(module: nn.Module, forward: Callable[..., torch.Tensor], x: torch.Tensor, **known: Any) -> torch.Tensor:
    """Return forward(x), as the module's hooks change it; `known` are keywords that they read."""
    if not forward_hook_count(module):
        return forward(x)
    output: torch.Tensor = call_with_hooks(module, forward, x, **known)
    return output
