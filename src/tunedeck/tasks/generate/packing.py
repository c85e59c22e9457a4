"""Conversations as rows of a batch, one to a row or several behind one another without seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from tunedeck.deck.deck import AdapterNames, Deck
from tunedeck.deck.patches.output_positions import OutputPositions
from tunedeck.methods.packed_embedding import vocabulary_size
from tunedeck.tasks.generate.chat_tokens import Encoded
from tunedeck.tasks.text import PAD_TO


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows ready for the model, virtual tokens included, and the positions that are trained on."""

    input_ids: torch.Tensor  # (rows, seq)
    attention_mask: torch.Tensor  # (rows, seq), or (rows, 1, seq, seq) to add to the scores where rows hold several
    position_ids: torch.Tensor  # (rows, seq), counted anew in every conversation
    loss_mask: torch.Tensor  # (rows, seq), true where the next token is predicted
    targets: torch.Tensor  # (targets,), those tokens


def pack_rows(conversations: Sequence[Encoded], limit: int) -> list[list[Encoded]]:
    """Fill rows of up to `limit` tokens, the longest conversations first, each into the first row with room."""
    leaves = 1 << max(len(conversations) - 1, 0).bit_length()
    room = [limit] * (2 * leaves)  # a tree: each node has the most room of the two below it, the leaves are the rows
    rows: list[list[Encoded]] = [[] for _ in range(leaves)]
    for one in sorted(conversations, key=lambda one: -len(one.ids)):
        length, node = min(len(one.ids), limit), 1
        while node < leaves:
            node *= 2
            node += room[node] < length
        rows[node - leaves].append(one)
        room[node] -= length
        while node := node // 2:
            room[node] = max(room[2 * node], room[2 * node + 1])
    return [row for row in rows if row]


def pack(deck: Deck, name: str | None, rows: Sequence[Sequence[Encoded]]) -> Pack:
    """Return rows of conversations as tensors, padded on the right; each conversation begins with the adapter's virtual
    tokens.
    """
    vocab_size = vocabulary_size(deck.model)
    virtual = list(range(vocab_size, vocab_size + deck.virtual_tokens(name)))
    longest = max(sum(len(virtual) + len(one.ids) for one in row) for row in rows)
    width = -(-longest // PAD_TO) * PAD_TO
    ids = torch.full((len(rows), width), int(deck.model.config.pad_token_id))
    owner = torch.full((len(rows), width), -1)
    positions = torch.zeros_like(ids)
    loss_mask = torch.zeros((len(rows), width), dtype=torch.bool)
    targets: list[int] = []
    for index, row in enumerate(rows):
        at = 0
        for number, one in enumerate(row):
            whole = torch.tensor([*virtual, *one.ids])
            end = at + len(whole)
            ids[index, at:end], owner[index, at:end] = whole, number
            positions[index, at:end] = torch.arange(len(whole))
            first = at + len(virtual)
            loss_mask[index, first : end - 1] = torch.tensor(list(one.loss_mask[1:]), dtype=torch.bool)
            targets += [token for token, counted in zip(one.ids[1:], one.loss_mask[1:], strict=True) if counted]
            at = end
    device = deck.model.device
    owner = owner.to(device)  # the mask of 2,048 positions is 8 MB, which a GPU fills faster than it receives them
    mask = (owner >= 0).long() if all(len(row) == 1 for row in rows) else _block_mask(owner, deck.base.dtype)
    return Pack(ids.to(device), mask, positions.to(device), loss_mask.to(device), torch.tensor(targets, device=device))


def joined(packs: Sequence[Pack], pad_id: int, dtype: torch.dtype) -> Pack:
    """Packs one below the other, filled up to the longest."""
    width = max(one.input_ids.shape[1] for one in packs)
    packs = [_widened(one, width, pad_id) for one in packs]
    masks = [one.attention_mask for one in packs]
    if any(mask.dim() == 4 for mask in masks):
        masks = [mask if mask.dim() == 4 else _block_mask(mask - 1, dtype) for mask in masks]
    return Pack(
        torch.cat([one.input_ids for one in packs]),
        torch.cat(masks),
        torch.cat([one.position_ids for one in packs]),
        torch.cat([one.loss_mask for one in packs]),
        torch.cat([one.targets for one in packs]),
    )


def _widened(one: Pack, width: int, pad_id: int) -> Pack:
    missing = width - one.input_ids.shape[1]
    if not missing:
        return one
    mask = one.attention_mask
    return Pack(
        F.pad(one.input_ids, (0, missing), value=pad_id),
        F.pad(mask, (0, missing))
        if mask.dim() == 2
        else F.pad(mask, (0, missing, 0, missing), value=torch.finfo(mask.dtype).min),
        F.pad(one.position_ids, (0, missing)),
        F.pad(one.loss_mask, (0, missing)),
        one.targets,
    )


def target_logits(deck: Deck, name: AdapterNames, packed: Pack) -> torch.Tensor:
    """Return logits (targets, vocab) at the positions whose next token is trained on; the output layer works on those
    alone.
    """
    with OutputPositions(packed.loss_mask).on(deck.base):
        return _logits(deck, name, packed)


def target_states(deck: Deck, name: AdapterNames, packed: Pack) -> torch.Tensor:
    """Return the output layer's input at those positions, (targets, hidden); the output layer itself does next to
    nothing.
    """
    positions = OutputPositions(packed.loss_mask, most=1)
    with positions.on(deck.base):
        _logits(deck, name, packed)
    assert positions.states is not None
    return positions.states


def output_is_a_product(deck: Deck, name: str | None, packed: Pack) -> bool:
    """Tell whether the logits are the frozen output layer's product and nothing more: no bias, no cap, no scale, no
    adapter in it.
    """
    output_layer = deck.model.get_output_embeddings()
    if type(output_layer) is not nn.Linear or cast(Any, output_layer).bias is not None:
        return False
    if name is not None:
        built = deck.adapter(name).built
        path = next(path for path, module in deck.model.named_modules() if module is output_layer)
        if built.weights or path in built.placements:
            return False
    with torch.no_grad():
        product = output_layer(target_states(deck, name, packed)[None])[0]
        return torch.equal(product, target_logits(deck, name, packed))


def _logits(deck: Deck, name: AdapterNames, packed: Pack) -> torch.Tensor:
    inputs = {
        "input_ids": packed.input_ids,
        "attention_mask": packed.attention_mask,
        "position_ids": packed.position_ids,
        "use_cache": False,
    }
    return cast(torch.Tensor, deck.call(deck.adapters_of_rows(name, len(packed.input_ids)), inputs).logits[0])


def _block_mask(owner: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the mask added to the attention scores: 0 for earlier tokens of the same conversation, the lowest number
    elsewhere.
    """
    seq = owner.shape[1]
    earlier = torch.ones(seq, seq, dtype=torch.bool, device=owner.device).tril()
    same = (owner[:, :, None] == owner[:, None, :]) & earlier
    mask = torch.zeros(same.shape, dtype=dtype, device=owner.device)
    return mask.masked_fill(~same, torch.finfo(dtype).min)[:, None]
