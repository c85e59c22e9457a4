"""Patches nest in any order, and after them the model is what it was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from support import tiny_models

import tunedeck as td
from tunedeck.deck.patches.base import Patch, Unchanged, patched, replaced_forward
from tunedeck.deck.patches.checkpointing import Checkpointing
from tunedeck.deck.patches.first_position import FirstPositionOnly
from tunedeck.deck.patches.lower_layers import LowerLayers
from tunedeck.deck.patches.output_positions import OutputPositions

IDS = torch.randint(4, tiny_models.VOCAB, (2, 7), generator=torch.Generator().manual_seed(0))


def loss_and_gradients(deck: td.Deck, patches: tuple[Patch, ...]) -> list[torch.Tensor]:
    with patched(deck.base, *patches):
        loss = deck(IDS, adapter="a").logits.square().mean()
        found = torch.autograd.grad(loss, list(deck.adapter("a").parameters()), allow_unused=True)
    return [loss.detach(), *(tensor for tensor in found if tensor is not None)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_loss_and_its_gradients_are_the_same_in_every_order_of_the_patches(order: tuple[int, ...]) -> None:
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "a", td.LoraConfig(target_modules="all-linear", layers_to_transform=(1,)))
    lower = LowerLayers(deck.base, deck.adapter("a"), [7, 7])
    with lower.patch([0, 1]).on(deck.base), torch.no_grad():
        deck(IDS, adapter="a")
    patches = (Checkpointing(deck.router, deck.adapter("a"), True), lower.patch([0, 1]), FirstPositionOnly())
    wanted = loss_and_gradients(deck, (FirstPositionOnly(),))
    found = loss_and_gradients(deck, tuple(patches[number] for number in order))
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))
    assert not any("forward" in vars(module) for module in deck.model.modules())


def test_a_forward_that_was_there_before_is_there_again_after_nested_blocks() -> None:
    module = torch.nn.Linear(2, 2)

    def doubled(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: 2 * forward(x)

    x = torch.ones(1, 2)
    plain = module(x)
    with replaced_forward(module, doubled):
        with replaced_forward(module, doubled):
            assert torch.equal(module(x), 4 * plain)
        assert torch.equal(module(x), 2 * plain)
    assert torch.equal(module(x), plain)
    assert "forward" not in vars(module)


def test_a_patch_is_undone_when_its_block_fails() -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig())
    hooks = tiny_models.hook_count(deck.model)
    patches = (Checkpointing(deck.router, deck.adapter("a"), True), FirstPositionOnly(), Unchanged())
    with pytest.raises(ZeroDivisionError), patched(deck.base, *patches):
        _ = 1 // 0
    assert tiny_models.hook_count(deck.model) == hooks
    assert not any("forward" in vars(module) for module in deck.model.modules())


def test_the_output_layer_sees_the_chosen_positions_alone() -> None:
    deck = tiny_models.deck_of("llama", "causal")
    chosen = torch.zeros_like(IDS, dtype=torch.bool)
    chosen[0, 2] = chosen[1, 5] = True
    with torch.no_grad():
        whole = deck(IDS).logits
        positions = OutputPositions(chosen)
        with positions.on(deck.base):
            some = deck.call([None, None], {"input_ids": IDS}).logits
    assert some.shape == (1, 2, tiny_models.VOCAB)
    assert torch.allclose(some[0], whole[chosen], atol=1e-6)
    assert positions.states is not None
    assert positions.states.shape == (2, tiny_models.HIDDEN)


@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("bert", "plain"), ("gpt2", "causal")])
def test_the_layers_of_a_base_are_found_with_a_head_and_without(model_type: str, form: str) -> None:
    model = tiny_models.tiny_model(model_type, form)
    base = tiny_models.deck_of(model_type).base
    prefix = "" if form == "plain" else model.base_model_prefix
    base = replace(base, model=model, prefix=prefix)
    assert base.layers is not None
    assert len(base.layers) == tiny_models.LAYERS
    assert replace(base, spec=None).layers is None
    assert replace(base, prefix="elsewhere").layers is None
