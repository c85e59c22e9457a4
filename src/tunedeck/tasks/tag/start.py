"""The head that a run of token classification begins with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from tunedeck.data.batches import batches_by_length
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.tasks.base import Dataset, Started
from tunedeck.tasks.kept_heads import kept_linear_head
from tunedeck.tasks.tag.reading import TaggedText
from tunedeck.tasks.tag.task import UNLEARNT, Tag, evaluate_tagged, learnt_windows
from tunedeck.tasks.text import pad

MOST_WORDS = 40_000
"""The most words that the start of a head is fitted on; a larger data set is sampled randomly."""
_BATCH = 32


def start_head(deck: Deck, name: str, dataset: Dataset[TaggedText], *, fresh: bool = True) -> Started:
    """Fit an adapter's last layer to what it reads of the training words, be it `fresh` or trained."""
    adapter = deck.adapter(name)
    task, last = cast(Tag, adapter.task), last_linear(adapter.head)
    ids, targets, _ = learnt_windows(deck, name, task, dataset.train)
    order = random.Random(0).sample(range(len(ids)), len(ids))
    chosen: list[int] = []
    words = 0
    for row in order:
        words += int((targets[row] != UNLEARNT).sum())
        if chosen and words > MOST_WORDS:
            break
        chosen.append(row)
    inputs, wanted = _inputs(deck, name, last, [ids[row] for row in chosen], [targets[row] for row in chosen])
    head = kept_linear_head(inputs, wanted, len(deck.label_names(name)), multi_label=False, bias=last.bias is not None)
    with torch.no_grad():
        last.weight.copy_(head.weight)
        if last.bias is not None:
            last.bias.copy_(head.bias)
    return Started(evaluate_tagged(deck, name, task, dataset.evaluation)[1] if dataset.evaluation else {}, {})


def _inputs(
    deck: Deck, name: str, last: nn.Linear, ids: Sequence[list[int]], targets: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the last layer is given at the learnt positions, (words, size), float32, and their targets."""
    read: list[torch.Tensor] = []
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    virtual = deck.virtual_tokens(name)
    handle = last.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        with torch.inference_mode():
            for rows in batches_by_length([len(row) for row in ids], _BATCH):
                read.clear()
                deck(*pad(deck, [ids[row] for row in rows]), adapter=name)
                (states,) = read
                for state, row in zip(states[:, virtual:], rows, strict=True):
                    learnt = targets[row] != UNLEARNT
                    place = learnt.nonzero().squeeze(1).to(state.device)
                    found.append((state[place].float().cpu(), targets[row][learnt]))
    finally:
        handle.remove()
    return torch.cat([inputs for inputs, _ in found]), torch.cat([wanted for _, wanted in found])
