"""The optimizers: 8-bit states are a fourth of the memory, learn as well, and ask for their package by name."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from support.tiny_models import add_stirred, deck_of, logits_of, token_batch

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.methods import initial_tokens
from tunedeck.training.optimizer import adamw


def large_adapter() -> td.Deck:
    """Every tensor of the LoRA layers on a wide model has 4,096 numbers or more, from which on states are packed."""
    deck = deck_of("bert")
    add_stirred(deck, "new", td.LoraConfig(r=128, target_modules="all-linear"))
    return deck


def stepped(deck: td.Deck, name: str) -> tuple[torch.optim.Optimizer, list[float]]:
    """Three steps towards logits of zero, and the losses."""
    optimizer, losses = adamw(deck.adapter("new"), td.TrainingSettings(optimizer=name, learning_rate=1e-3)), []
    for _ in range(3):
        loss = deck(**token_batch(), adapter="new").logits.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return optimizer, losses


def state_bytes(optimizer: torch.optim.Optimizer, shape: tuple[int, ...]) -> int:
    """Bytes of the states of the tensors of one shape, shared tables left out."""
    states = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"] if p.shape == shape]
    tensors = [t for state in states for key, t in state.items() if torch.is_tensor(t) and not key.startswith("qmap")]
    return sum(tensor.nbytes for tensor in tensors if tensor.numel() > 1)


def test_eight_bit_states_take_a_fourth_of_the_memory_and_lead_the_same_way() -> None:
    plain, packed = large_adapter(), large_adapter()
    whole, losses = stepped(plain, "adamw")
    eight, same_losses = stepped(packed, "adamw_8bit")
    shape = (128, 32)
    assert 0.25 <= state_bytes(eight, shape) / state_bytes(whole, shape) < 0.27
    assert losses[2] < losses[0]
    assert same_losses == pytest.approx(losses, rel=0.05)
    assert not torch.equal(logits_of(packed, token_batch(), "new"), logits_of(plain, token_batch(), "new"))


def test_small_tensors_keep_whole_states() -> None:
    deck = large_adapter()
    optimizer, _ = stepped(deck, "adamw_8bit")
    heads = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"] if p.numel() < 4096]
    assert heads
    assert {state["state1"].dtype for state in heads} == {torch.float32}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunedeck.core.checks.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"adamw_8bit needs the package bitsandbytes; run: pip install 'tunedeck\[qlora"
    ):
        stepped(large_adapter(), "adamw_8bit")


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 2e-3),
        ({"head_init": "random"}, 0.05),
        ({"head_learning_rate": 0.01}, 0.01),
        ({"learning_rate": 1e-4}, 1e-4),
    ],
)
def test_a_fitted_head_trains_more_gently_than_virtual_tokens(settings: dict[str, Any], rate: float) -> None:
    deck = deck_of("bert", "classifier")
    deck.add("new", td.PromptTuningConfig(num_virtual_tokens=2))
    optimizer = adamw(deck.adapter("new"), td.TrainingSettings(**{"learning_rate": 0.05, **settings}))
    head = {id(p) for module in deck.adapter("new").head.values() for p in module.parameters()}
    rates = {group["lr"] for group in optimizer.param_groups for p in group["params"] if id(p) in head}
    assert rates == {rate}


@pytest.mark.parametrize(("model_type", "init"), [("bert", "SAMPLE_VOCAB"), ("llama", "AUTO")])
def test_virtual_tokens_begin_as_common_tokens(
    model_type: str, init: Literal["AUTO", "SAMPLE_VOCAB"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_tokens, "COMMON_TOKENS", 4)
    deck = deck_of(model_type, "classifier")
    deck.add("new", td.PromptTuningConfig(12, init))
    common = deck.model.get_input_embeddings().weight[:4]
    (prompt,) = (placement.layer for placement in deck.adapter("new").built.placements.values())
    assert all((vector == common).all(-1).any() for vector in prompt.prompt_embeddings)
    assert prompt.prompt_embeddings.unique(dim=0).shape[0] > 1


@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert"])
def test_virtual_tokens_of_an_encoder_begin_as_its_separator(model_type: str) -> None:
    deck = deck_of(model_type, "classifier")
    deck.add("new", td.PromptTuningConfig())
    (prompt,) = (placement.layer for placement in deck.adapter("new").built.placements.values())
    separator = deck.model.get_input_embeddings().weight[deck.tokenizer.sep_token_id]
    assert prompt.prompt_embeddings.shape[0] == 8
    assert (prompt.prompt_embeddings == separator).all()
