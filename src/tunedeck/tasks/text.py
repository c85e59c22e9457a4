"""Texts to padded token ids."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, cast

import torch

from tunedeck.core.errors import ConfigError, ModelError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import PairIds, TextPair, pair_lengths
from tunedeck.deck.deck import Deck
from tunedeck.deck.forward import Inputs

PAD_TO = 8
"""Lengths are rounded up to this: few distinct shapes spare the CPU's kernel library from building new kernels."""
_CHARS_A_TOKEN = 8
"""More characters than most tokens have: that much of a long text is read first, and four times as much where it was
too little.
"""
_MARGIN = 128
"""The last tokens before the place where a text was broken off may differ from those of the whole text; this number is
not used. WordPiece makes one unknown token of a word above 100 characters, and up to 100 tokens of a part of it.
"""

AT_A_TIME = 10_000
"""Texts that are encoded together: what the tokenizers library makes of one takes many times as much as its ids."""


def tokenize(deck: Deck, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return token ids of each text with its special tokens, cut to `max_length`; of a TextPair, the longer text first.

    Raises ModelError when the base has no tokenizer, ConfigError when no token of text would be left.
    """
    tokenizer = deck.tokenizer
    if tokenizer is None:
        raise ModelError(
            say("{model} has no tokenizer files; put tokenizer.json next to its config.json", model=deck.base.reference)
        )
    room = max_length - tokenizer.num_special_tokens_to_add()
    if room <= 0:
        raise ConfigError(
            say("max_length leaves no room for text besides the virtual and the special tokens; raise it or use fewer")
        )
    if any(isinstance(text, TextPair) for text in texts):
        pairs = iter(_pair_ids(tokenizer, [text for text in texts if isinstance(text, TextPair)], max_length))
        singles = iter(_text_ids(tokenizer, [text for text in texts if not isinstance(text, TextPair)], max_length))
        return [next(pairs if isinstance(text, TextPair) else singles) for text in texts]
    return _text_ids(tokenizer, texts, max_length)


def _text_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    if not tokenizer.is_fast:
        encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
        return cast("list[list[int]]", encoded["input_ids"])
    room = max_length - tokenizer.num_special_tokens_to_add()
    return cut_ids(tokenizer.backend_tokenizer, texts, room, tokenizer.truncation_side)


def _pair_ids(tokenizer: Any, pairs: Sequence[TextPair], max_length: int) -> list[PairIds]:
    if not tokenizer.is_fast:
        encoded = tokenizer(
            [pair.first for pair in pairs],
            [pair.second for pair in pairs],
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True,
        )
        return [PairIds(*found) for found in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)]
    return cut_pairs(tokenizer.backend_tokenizer, pairs, max_length, tokenizer.truncation_side)


def cut_pairs(backend: Any, pairs: Sequence[TextPair], max_length: int, side: str = "right") -> list[PairIds]:
    """Return token ids and types of pairs, cut to `max_length` with the special tokens, the longer text first.

    A line break comes before the second text where the tokenizer puts no special token between the two, as those of
    many decoders. ConfigError when no token of text would be left or there is none.
    """
    _read_whole(backend)
    between = "" if backend.num_special_tokens_to_add(True) > backend.num_special_tokens_to_add(False) else "\n"
    room = max_length - backend.num_special_tokens_to_add(True)
    if room < 2:
        raise ConfigError(
            say("max_length leaves no room for text besides the virtual and the special tokens; raise it or use fewer")
        )
    firsts = backend.encode_batch_fast([pair.first for pair in pairs], add_special_tokens=False)
    seconds = backend.encode_batch_fast([between + pair.second for pair in pairs], add_special_tokens=False)
    found = []
    for first, second in zip(firsts, seconds, strict=True):
        kept = pair_lengths(len(first), len(second), room)
        first.truncate(kept[0], direction=side)
        second.truncate(kept[1], direction=side)
        whole = backend.post_process(first, second)
        if not whole.ids:
            raise ConfigError(say("the text has no tokens"))
        found.append(PairIds(whole.ids, whole.type_ids))
    return found


def kept_ids(deck: Deck, texts: Sequence[str], max_length: int) -> list[Sequence[int]]:
    """Return what `tokenize` does, for as long as a run lasts: four bytes for each token of a single text."""
    return [
        row if isinstance(row, PairIds) else array("i", row)
        for start in range(0, len(texts), AT_A_TIME)
        for row in tokenize(deck, texts[start : start + AT_A_TIME], max_length)
    ]


def tokenize_rows(deck: Deck, texts: Sequence[str], limits: Sequence[int]) -> list[list[int]]:
    """Return token ids of each text, cut to its limit; see `tokenize`."""
    rows_of: dict[int, list[int]] = {}
    for row, limit in enumerate(limits):
        rows_of.setdefault(limit, []).append(row)
    ids: list[list[int]] = [[] for _ in texts]
    for limit, rows in rows_of.items():
        for row, tokens in zip(rows, tokenize(deck, [texts[row] for row in rows], limit), strict=True):
            ids[row] = tokens
    return ids


def cut_ids(backend: Any, texts: Sequence[str], room: int, side: str = "right") -> list[list[int]]:
    """Return token ids of each text, cut to `room` tokens besides the special ones, by a tokenizer of the tokenizers
    library.

    The cut is not set on the tokenizer, which other threads use as well. Of a long text only as much is read as the cut
    leaves.
    """
    _read_whole(backend)
    found: list[list[int]] = []
    for start in range(0, len(texts), AT_A_TIME):
        found += _cut(backend, texts[start : start + AT_A_TIME], room, side)
    return found


def _cut(backend: Any, texts: Sequence[str], room: int, side: str) -> list[list[int]]:
    encodings: list[Any] = [None] * len(texts)
    unread, length = list(range(len(texts))), _CHARS_A_TOKEN * (room + _MARGIN)
    while unread:
        whole = side != "right"
        parts = [texts[row] if whole else texts[row][:length] for row in unread]
        for row, encoding in zip(unread, backend.encode_batch_fast(parts, add_special_tokens=False), strict=True):
            encodings[row] = encoding
        unread = [
            row for row in unread if not whole and len(texts[row]) > length and len(encodings[row]) < room + _MARGIN
        ]
        length *= 4
    for encoding in encodings:
        encoding.truncate(room, direction=side)
    return [backend.post_process(encoding).ids for encoding in encodings]


def _read_whole(backend: Any) -> None:
    """Clear the truncation and the padding of a tokenizer's file, before its first use."""
    if backend.truncation is not None or backend.padding is not None:
        backend.no_truncation()
        backend.no_padding()


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raise ConfigError for token ids that come from outside and are none, or none of this vocabulary."""
    if not ids or not all(0 <= one < vocabulary for one in ids):
        raise ConfigError(say("a prompt has one token or more, each from 0 to {last}", last=vocabulary - 1))


def fitting_ids(ids: Sequence[int], vocabulary: int, room: int) -> list[int]:
    """Return token ids that come from outside in place of a text; ConfigError for those of another vocabulary and for
    too many.
    """
    check_ids(ids, vocabulary)
    if len(ids) > room:
        raise ConfigError(say("{count} tokens are more than the {limit} that fit here", count=len(ids), limit=room))
    return list(ids)


def pad(deck: Deck, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask, (batch, seq), padded on the right to a multiple of PAD_TO within the model's limit."""
    longest = max(len(row) for row in rows)
    width = max(longest, min(-(-longest // PAD_TO) * PAD_TO, deck.length_limit))
    ids = torch.full((len(rows), width), deck.model.config.pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    device = next(deck.model.parameters()).device
    return ids.to(device), mask.to(device)


def has_token_types(deck: Deck) -> bool:
    """Tell whether the base tells the two texts of a pair apart by types of tokens."""
    return bool(getattr(deck.model.config, "type_vocab_size", 0) > 1)


def padded(deck: Deck, rows: Sequence[Sequence[int]]) -> Inputs:
    """Return rows padded as `pad` does, with token types where there are pairs and the base has such types."""
    ids, mask = pad(deck, rows)
    if not has_token_types(deck) or not any(isinstance(row, PairIds) for row in rows):
        return Inputs(ids, mask, None)
    types = torch.zeros_like(ids, device="cpu")
    for place, row in enumerate(rows):
        if isinstance(row, PairIds):
            types[place, : len(row)] = torch.tensor(row.types)
    return Inputs(ids, mask, types.to(ids.device))
