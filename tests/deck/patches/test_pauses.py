"""A batch that runs in the middle of another changes neither."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.mixed_decks import KINDS, full_deck
from support.tiny_models import token_batch

import tunedeck as td
from tunedeck.deck.patches.pauses import Pauses

NAMES: list[str | None] = [None, *(name for name in KINDS if name != "full"), "lora-2", "prompt-2"]


def logits(deck: td.Deck, batch: dict[str, torch.Tensor], names: Sequence[str | None]) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = deck(**batch, adapter=names).logits
    return answer


@pytest.mark.parametrize("inner", ["full", *NAMES], ids=str)
@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("llama", "classifier"), ("llama", "causal")])
def test_a_batch_inside_another_changes_neither(model_type: str, form: str, inner: str | None) -> None:
    deck = full_deck(model_type, form)
    long, short = token_batch(len(NAMES)), token_batch(2)
    expected, expected_inside = logits(deck, long, NAMES), logits(deck, short, [inner, None])
    inside: list[torch.Tensor] = []

    def pause() -> None:
        if running:
            return
        running.append(True)
        inside.append(logits(deck, short, [inner, None]))
        running.clear()

    running: list[bool] = []
    with Pauses(pause).on(deck.base):
        got = logits(deck, long, NAMES)
    assert torch.equal(got, expected)
    assert len(inside) >= 4  # each of two layers has two parts at least
    assert all(torch.equal(one, expected_inside) for one in inside)


def test_nothing_is_left_of_the_pauses_afterwards() -> None:
    deck, called = full_deck("bert", "classifier"), []
    with Pauses(lambda: called.append(1)).on(deck.base):
        logits(deck, token_batch(1), [None])
    count = len(called)
    logits(deck, token_batch(1), [None])
    assert len(called) == count > 0
