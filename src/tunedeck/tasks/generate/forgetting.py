"""Forgetting of a chat model in fine-tuning: its loss on text that has nothing to do with the task."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tunedeck.core.glossary import terms
from tunedeck.data.batches import batches_by_length
from tunedeck.deck.deck import Deck
from tunedeck.tasks.text import pad

_BATCH = 16


def loss_on_other_text(deck: Deck, name: str | None) -> float:
    """Return the mean loss of a token in the explanations of the glossary, in the user's language, by an adapter or by
    the base: plain text without the chat template.
    """
    limit = deck.text_limit(name)
    ids = [deck.tokenizer(term.text)["input_ids"][:limit] for term in terms()]
    total, count = 0.0, 0
    with torch.inference_mode():
        for rows in batches_by_length([len(row) for row in ids], _BATCH):
            input_ids, mask = pad(deck, [ids[row] for row in rows])
            logits = deck(input_ids, mask, adapter=name).logits
            follows = mask[:, 1:].bool()
            losses = F.cross_entropy(logits[:, :-1][follows].float(), input_ids[:, 1:][follows], reduction="sum")
            total, count = total + losses.item(), count + int(follows.sum())
    return total / count
