"""A step of decoding for models of Llama's architecture, without transformers' modules around the products.

A step computes one position of each sequence: little arithmetic, so that much of its time is Python and small tensor
operations. Modules give their weights here and, where adapters are, their hooks; what lies between two products is
written out in fewer operations, for x of (rows, hidden); hooks see (rows, 1, hidden) as in the modules. Answers are
those of the modules, to rounding.
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

from tunedeck.core.compat.torch import (
    call_with_hooks,
    forward_hook_count,
    forward_hook_numbers,
    forward_hooks,
    int8_product,
)
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.attention import attention_over_buckets
from tunedeck.methods.int8 import FEW_ROWS, Int8Linear, side_by_side_in_memory
from tunedeck.methods.linears import linear_shape
from tunedeck.methods.sites import LinearHook, unchanged

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
    return LlamaStep(deck) if known and model.device.type == "cpu" else None


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

    def __init__(self, deck: Deck) -> None:
        model: Any = deck.model
        self._deck = deck
        self._embedding, self._rotary = model.model.embed_tokens, model.model.rotary_emb
        self._layers = [_Layer(layer, number) for number, layer in enumerate(model.model.layers)]
        self._linears = [linears for layer in self._layers for linears in layer.linears]
        self._resolved: object = None
        self._norm = _norm(model.model.norm)
        self._output = _output(model.lm_head, deck.int8_output)

    def fits(self, cache: Cache) -> bool:
        """Tell whether every layer of a cache keeps all positions."""
        return not any(layer.is_sliding for layer in cache.layers)

    def logits(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Return (rows, vocab) for ids and positions (rows, 1); mask (rows, positions) includes those to compute."""
        self._resolve()
        x = self._embedding(ids[:, 0])
        cos, sin = (tensor[:, :, None] for tensor in self._rotary(x, positions))
        first, second = sin.chunk(2, -1)
        width = cache.layers[0].get_mask_sizes(1)[0]
        scores = x.new_full((len(ids), 1, 1, width), torch.finfo(x.dtype).min)
        scores[:, 0, 0, : mask.shape[1]].masked_fill_(mask.bool(), 0)
        position = _Position(cos, torch.cat([-first, second], -1), scores, cache)
        for layer in self._layers:
            x = layer.forward(x, position)
        return self._output(self._norm(x))

    def _resolve(self) -> None:
        """Look up what hooks do in this step, unless the rows, the adapters and the hooks are those of the last one."""
        hooks = [number for linears in self._linears for number in linears.hook_numbers()]
        now = self._deck.router.segments, self._deck.placed, hooks
        if now != self._resolved:
            for linears in self._linears:
                linears.resolve()
            self._resolved = now


@final
class _Layer:
    def __init__(self, layer: Any, number: int) -> None:
        self._number, self._attention, self._mlp = number, layer.self_attn, layer.mlp
        self._before_attention, self._before_mlp = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._qkv = _Linears(*(getattr(layer.self_attn, f"{name}_proj") for name in "qkv"))
        self._o, self._down = _Linears(layer.self_attn.o_proj), _Linears(layer.mlp.down_proj)
        self._gate_up, self._activation = _Linears(layer.mlp.gate_proj, layer.mlp.up_proj), layer.mlp.act_fn
        self.linears = self._qkv, self._o, self._gate_up, self._down
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
        return self._o(attended.view(len(x), -1))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_up(x).chunk(2, -1)
        return self._down(self._activation(gate) * up)


@final
class _Linears:
    """Linear layers with the same input, their outputs side by side: (rows, in) to (rows, sum of sizes)."""

    def __init__(self, *linears: nn.Module) -> None:
        self.sizes = [linear_shape(linear)[1] for linear in linears]
        self._linears, self._products = linears, [_product(linear) for linear in linears]
        self._together = _one_product(linears)
        self._add: _Change | None = None
        self._calls_hooks = False

    def hook_numbers(self) -> list[int]:
        """Return numbers that tell the layers' hooks from any others."""
        return [number for linear in self._linears for number in forward_hook_numbers(linear)]

    def resolve(self) -> None:
        """Look up what the layers' hooks do to the rows of the running batch."""
        hooks = [forward_hooks(linear) for linear in self._linears]
        self._add = _join(hooks, self.sizes)
        self._calls_hooks = self._add is None and any(hooks)
        if self._add is unchanged:
            self._add = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._calls_hooks:
            calls = zip(self._linears, self._products, strict=True)
            return _joined([_hooked(linear, product, x) for linear, product in calls])
        if self._together is not None and len(x) <= FEW_ROWS:
            output = self._together(x)
        else:
            output = _joined([product(x) for product in self._products])
        return output if self._add is None else self._add(x, output)


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
    few = _one_product([linear])
    return linear.forward if few is None else lambda x: few(x) if len(x) <= FEW_ROWS else linear.forward(x)


def _one_product(linears: Sequence[nn.Module]) -> _Function | None:
    """Return a function that computes the products of 8-bit layers with few rows as one; None for other layers."""
    layers = [one for one in linears if isinstance(one, Int8Linear) and one.bias is None and one.multiplies_few_rows]
    if len(layers) < len(linears):
        return None
    weight, scale = (side_by_side_in_memory([getattr(one, name) for one in layers]) for name in ("weight", "scale"))
    return lambda x: int8_product(x, weight, scale)


def _output(layer: nn.Module, in_8_bits: Int8Linear | None) -> _Function:
    """Return a function that computes the output layer with its hooks, from its copy in 8 bits for very few rows."""
    plain = _product(layer)
    few = plain if in_8_bits is None else _product(in_8_bits)
    return partial(_hooked, layer, lambda x: few(x) if len(x) <= _ROWS_IN_8_BITS else plain(x))


def _norm(norm: Any) -> _Function:
    """Return a function that computes a norm, with its hooks.

    For one row it is the layer norm of x beside -x, whose mean is 0: one kernel, where torch's own has eight on a CPU.
    """
    size, weight, epsilon = len(norm.weight), norm.weight, norm.variance_epsilon
    twice = torch.cat([weight, weight]).detach()

    def compute(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            return torch.rms_norm(x, (size,), weight, epsilon)
        return torch.layer_norm(torch.cat([x, -x], -1), (2 * size,), twice, None, epsilon)[:, :size]

    return partial(_hooked, norm, compute)


def _hooked(module: nn.Module, forward: Callable[..., torch.Tensor], x: torch.Tensor, **known: Any) -> torch.Tensor:
    """Return forward(x), as the module's hooks change it: they see (rows, 1, size) and the keywords `known`."""
    if not forward_hook_count(module):
        return forward(x)

    def of_position(x: torch.Tensor, **more: Any) -> torch.Tensor:
        return forward(x[:, 0], **more)[:, None]

    output: torch.Tensor = call_with_hooks(module, of_position, x[:, None], **known)
    return output[:, 0]
