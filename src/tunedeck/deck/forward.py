"""One batch through the base: virtual tokens put in front, rows routed to their adapters, results in the caller's
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.heads import concatenate_padded
from tunedeck.methods.base import Prefix
from tunedeck.methods.packed_embedding import PackedEmbedding, vocabulary_size
from tunedeck.methods.routing import Router, Segment

WORTH_A_PASS = 64
"""Positions of padding for which a CPU had better run a batch in two passes: about what reading the weights again
takes.
"""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Token ids and masks, each (batch, seq)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor | None

    def rows(self, rows: slice | torch.Tensor) -> Inputs:
        """Return some of the rows, or all of them in another order."""
        types = None if self.token_type_ids is None else self.token_type_ids[rows]
        return Inputs(self.input_ids[rows], self.attention_mask[rows], types)

    def named(self) -> dict[str, torch.Tensor]:
        """Return the inputs as keyword arguments of a transformers model."""
        named = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return named if self.token_type_ids is None else {**named, "token_type_ids": self.token_type_ids}


def run_segments(
    model: Any,
    router: Router,
    inputs: Inputs,
    segments: Sequence[Segment],
    virtual_tokens: Sequence[int],
    prefixes: Sequence[Prefix | None],
    weights: Sequence[Mapping[str, nn.Parameter]],
    positions: int | None,
) -> Any:
    """Run a batch whose rows form segments; `virtual_tokens`, `prefixes` and `weights` belong to each segment.

    `positions` is the model's limit. Each segment with its weights (full fine-tuning) runs separately, those with a
    prefix run together, and all others together or in two passes. Returns the output of the model with `logits`, or a
    bare model's `last_hidden_state`, for the caller's positions; labels that a row does not have are -inf.
    """
    behind = [index for index, prefix in enumerate(prefixes) if prefix is not None]
    full = [[index] for index, own in enumerate(weights) if own]
    rest = [index for index, own in enumerate(weights) if not own and index not in behind]
    # A prefix widens the attention of all rows: without it the others stay equal to the last bit.
    passes = [*_shared_passes(inputs, segments, virtual_tokens, rest), *([behind] if behind else []), *full]
    parts: dict[int, torch.Tensor] = {}
    output: Any = None
    for indices in passes:
        chosen = _renumbered([segments[i] for i in indices])
        rows = torch.cat([torch.arange(segments[i].rows.start, segments[i].rows.stop) for i in indices])
        part = inputs if len(passes) == 1 else inputs.rows(rows.to(inputs.input_ids.device))
        counts = [virtual_tokens[i] for i in indices]
        widened = _with_virtual_tokens(model, part, chosen, counts, positions)
        if positions is not None and indices == behind:
            taken = max(prefix.positions for prefix in prefixes if prefix is not None)
            check_length(positions, taken + _longest(part.attention_mask))
        with router.routed(chosen):
            output = call_model(model, widened.named(), weights[indices[0]])
        if len(passes) == 1 and not any(counts):
            return output
        answer = output[answer_name(output)]
        for index, segment, count in zip(indices, chosen, counts, strict=True):
            own = answer[segment.rows]
            parts[index] = _of_callers_positions(own, count, inputs.input_ids.shape[1]) if own.dim() == 3 else own
    return with_answer(output, concatenate_padded([parts[index] for index in range(len(segments))]))


def _shared_passes(
    inputs: Inputs, segments: Sequence[Segment], virtual_tokens: Sequence[int], shared: Sequence[int]
) -> list[list[int]]:
    """Group the `shared` segments: in one pass, or those with virtual tokens apart where the others' padding costs
    more.
    """
    wide = [index for index in shared if virtual_tokens[index]]
    narrow = [index for index in shared if not virtual_tokens[index]]
    padding = sum(segments[i].rows.stop - segments[i].rows.start for i in narrow) * max(virtual_tokens)
    apart = inputs.input_ids.device.type == "cpu" and padding >= WORTH_A_PASS
    return [part for part in ((narrow, wide) if apart else (list(shared),)) if part]


def answer_name(output: Any) -> str:
    """Return which of a transformers output's tensors answers the batch: its logits, or a bare model's last hidden
    states.
    """
    return "logits" if "logits" in output else "last_hidden_state"


def with_answer(output: Any, answer: torch.Tensor) -> Any:
    """Return an output of the same class that holds this answer alone."""
    return type(output)(**{answer_name(output): answer})


def call_model(model: nn.Module, inputs: Mapping[str, Any], weights: Mapping[str, nn.Parameter]) -> Any:
    """Return the model's output for keyword inputs, with `weights` in place of the model's where there are any."""
    if not weights:
        return model(**inputs)
    own = {name: weight.to(_precision(model, name)) for name, weight in weights.items()}
    return functional_call(model, own, kwargs=dict(inputs))


def _precision(model: nn.Module, name: str) -> torch.dtype:
    """Return the precision of a parameter, or of the packed embedding that has none."""
    module = model.get_submodule(name.rpartition(".")[0])
    return module.dtype if isinstance(module, PackedEmbedding) else model.get_parameter(name).dtype


def _of_callers_positions(answer: torch.Tensor, virtual_tokens: int, seq: int) -> torch.Tensor:
    """Return (batch, seq, vocab or hidden) without the virtual positions; zeros where `_with_virtual_tokens` has cut
    padding off.
    """
    own = answer[:, virtual_tokens : virtual_tokens + seq]
    return F.pad(own, (0, 0, 0, seq - own.shape[1])) if own.shape[1] < seq else own


def _renumbered(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return the segments with rows counted from 0."""
    renumbered, start = [], 0
    for segment in segments:
        size = segment.rows.stop - segment.rows.start
        renumbered.append(Segment(segment.adapter, slice(start, start + size)))
        start += size
    return tuple(renumbered)


def _with_virtual_tokens(
    model: Any, inputs: Inputs, segments: Sequence[Segment], counts: Sequence[int], positions: int | None
) -> Inputs:
    """Return each row as [virtual tokens][the caller's row][filler up to the longest], so that positions are as in a
    single run.

    What is padding in every row is cut off where the model has no positions for it.
    """
    most = max(counts)
    if most == 0:
        check_length(positions, inputs.input_ids.shape[1])
        return inputs
    ids, seq = inputs.input_ids, inputs.input_ids.shape[1]
    vocab_size = vocabulary_size(model)
    wide_ids = ids.new_full((ids.shape[0], seq + most), model.config.pad_token_id)
    mask = torch.zeros_like(wide_ids)
    types = torch.zeros_like(wide_ids)
    virtual = torch.arange(vocab_size, vocab_size + most, device=ids.device)
    for segment, count in zip(segments, counts, strict=True):
        rows = segment.rows
        wide_ids[rows, :count] = virtual[:count]
        wide_ids[rows, count : count + seq] = ids[rows]
        mask[rows, :count] = 1
        mask[rows, count : count + seq] = inputs.attention_mask[rows]
        if inputs.token_type_ids is not None:
            types[rows, count : count + seq] = inputs.token_type_ids[rows]
    width = seq + most
    if positions is not None and width > positions:
        check_length(positions, _longest(mask))
        width = positions
    types = types[:, :width]
    return Inputs(wide_ids[:, :width], mask[:, :width], None if inputs.token_type_ids is None else types)


def _longest(attention_mask: torch.Tensor) -> int:
    """Return how many positions there are up to the last that is not padding in every row."""
    return int(attention_mask.any(dim=0).nonzero().max()) + 1


def position_limit(model: Any) -> int | None:
    """Return the longest sequence, in tokens, that the model has positions for; None where it has no limit.

    A position table with a padding index, as RoBERTa's, begins to count after it.
    """
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    unused = next((t.padding_idx + 1 for t in tables if isinstance(t, nn.Embedding) and t.padding_idx is not None), 0)
    return None if limit is None else limit - unused


def check_length(limit: int | None, length: int) -> None:
    """Raise ConfigError when a sequence, its virtual tokens included, is longer than the model's positions."""
    if limit is not None and length > limit:
        raise ConfigError(
            say(
                "{length} tokens, virtual ones included, are more than the model's {limit} positions; shorten "
                "the input",
                length=length,
                limit=limit,
            )
        )
