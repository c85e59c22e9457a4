"""The loss of a chat model on text that has nothing to do with its task."""

from __future__ import annotations

import pytest
import torch
from support import tiny_models

import tunedeck as td
from tunedeck.core.glossary import terms
from tunedeck.tasks.generate.forgetting import loss_on_other_text


def test_the_loss_is_transformers_own_mean_over_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    deck = tiny_models.deck_of("llama", "causal")
    tiny_models.add_stirred(deck, "a", td.LoraConfig(target_modules="all-linear"))
    texts = ["w10 w11 w12 w13", "w20 w21", "w30 w31 w32 w33 w34 w35 w36"]
    shown = [type(terms()[0])(name="", zh="", en_text=text, zh_text=text) for text in texts]
    monkeypatch.setattr("tunedeck.tasks.generate.forgetting.terms", lambda: shown)
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([deck.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            total += deck.model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert loss_on_other_text(deck, None) == pytest.approx(total / count, rel=1e-5)
    assert loss_on_other_text(deck, "a") != pytest.approx(total / count, rel=1e-3)


def test_an_adapter_that_changes_nothing_forgets_nothing() -> None:
    deck = tiny_models.deck_of("llama", "causal")
    deck.add("fresh", td.LoraConfig())
    assert loss_on_other_text(deck, "fresh") == pytest.approx(loss_on_other_text(deck, None), abs=1e-6)
