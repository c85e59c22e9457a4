"""Activation checkpointing: the same loss and gradient, less kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support import embedding_decks, tiny_models
from torch import nn

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.deck.patches.checkpointing import Checkpointing
from tunedeck.methods.base import MethodConfig
from tunedeck.models.precision import Dtype

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(target_modules="all-linear", lora_dropout=0.3),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
    "prefix": td.PrefixTuningConfig(num_virtual_tokens=4),
}


def loss_of(deck: td.Deck, ids: torch.Tensor, names: list[str]) -> torch.Tensor:
    torch.manual_seed(1)
    return deck(ids, adapter=names).logits.float().square().mean()


@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("llama", "causal"), ("gpt2", "causal")])
def test_the_gradients_of_a_mixed_batch_stay_the_same_and_less_is_kept(model_type: str, form: str) -> None:
    deck = tiny_models.deck_of(model_type, form)
    for seed, (name, config) in enumerate(KINDS.items()):
        tiny_models.add_stirred(deck, name, config, seed=seed)
        deck.adapter(name).train()
    ids = torch.randint(4, tiny_models.VOCAB, (len(KINDS), 7), generator=torch.Generator().manual_seed(0))
    names = list(KINDS)
    parameters = [p for name in names for p in deck.adapter(name).parameters()]
    kept: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        plain = loss_of(deck, ids, names)
    wanted, plainly_kept = torch.autograd.grad(plain, parameters, allow_unused=True), sum(kept)
    kept.clear()
    with Checkpointing(deck.router, deck.adapter("lora"), True).on(deck.base):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = loss_of(deck, ids, names)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert torch.equal(loss, plain)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert sum(kept) < plainly_kept
    assert not any("forward" in vars(module) for module in deck.model.modules())


@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("llama", "causal"), ("gpt2", "causal")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layers", [True, 1])
def test_full_fine_tunings_gradients_stay_the_same_and_less_is_kept(
    model_type: str, form: str, dtype: Dtype, layers: bool | int
) -> None:
    deck = tiny_models.deck_of(model_type, form, dtype=dtype)
    deck.add("a", td.FullConfig())
    tiny_models.stir(deck, "a", amount=0.3)  # far from the base's own weights, which the second pass must not take
    ids = torch.randint(4, tiny_models.VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    parameters = list(deck.adapter("a").parameters())
    own = [id(parameter) for parameter in deck.model.parameters()]
    kept: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        plain = loss_of(deck, ids, ["a"] * 3)
    wanted, plainly_kept = torch.autograd.grad(plain, parameters, allow_unused=True), sum(kept)
    kept.clear()
    with Checkpointing(deck.router, deck.adapter("a"), layers).on(deck.base):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = loss_of(deck, ids, ["a"] * 3)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert torch.equal(loss, plain)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert sum(kept) < plainly_kept
    assert [id(parameter) for parameter in deck.model.parameters()] == own


def test_an_unknown_architecture_is_refused() -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig())
    with (
        pytest.raises(ConfigError, match="not known"),
        Checkpointing(deck.router, deck.adapter("a"), True).on(replace(deck.base, spec=None)),
    ):
        pass
    assert isinstance(deck.model, nn.Module)


def test_an_embedding_base_without_a_head_is_recomputed_too() -> None:
    deck = embedding_decks.embed_deck()
    tiny_models.add_stirred(deck, "a", KINDS["lora"])
    ids = torch.randint(4, tiny_models.VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    parameters = list(deck.adapter("a").parameters())

    def gradients() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(deck(ids, adapter="a").last_hidden_state.square().mean(), parameters)

    wanted = gradients()
    with Checkpointing(deck.router, deck.adapter("a"), True).on(deck.base):
        assert "forward" in vars(deck.base.layers[0])  # type: ignore[index]
        found = gradients()
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))
