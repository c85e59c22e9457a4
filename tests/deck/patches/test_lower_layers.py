"""Layers below the first trained one are run once for each example; the loss and its gradient stay the same."""

from __future__ import annotations

import pytest
import torch
from support import tiny_models

import tunedeck as td
from tunedeck.data.labelled import Example
from tunedeck.deck.patches import lower_layers
from tunedeck.deck.patches.lower_layers import first_trained_layer
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.text_head import HeadObjective

TOP: dict[str, tuple[MethodConfig, int]] = {
    "lora": (td.LoraConfig(target_modules="all-linear", layers_to_transform=(1,)), 1),
    "full": (td.FullConfig(layers=1), 1),
    "head": (td.FullConfig(layers="head"), tiny_models.LAYERS),
}
WHOLE: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(target_modules="all-linear"),
    "bottleneck": td.BottleneckConfig("seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=2),
    "full": td.FullConfig(),
}
TEXTS = ["w5 w6", "w7 w8 w9 w10 w11", "w12", "w13 w14 w15 w16 w17 w18 w19 w20 w21", "w22 w23 w24"]


def objective_of(deck: td.Deck, name: str) -> HeadObjective:
    examples = [Example(text, (tiny_models.LABELS[row % 3],)) for row, text in enumerate(TEXTS)]
    data = Dataset("", examples, examples, "", "", tiny_models.LABELS)
    return td.Classify(labels=tiny_models.LABELS).objective(deck, name, data)


def gradients(deck: td.Deck, name: str) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in deck.adapter(name).parameters() if parameter.grad is not None]


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "llama", "gpt2"])
@pytest.mark.parametrize("kind", TOP)
def test_a_second_pass_skips_the_lower_layers_and_gives_the_same_loss_and_gradient(kind: str, model_type: str) -> None:
    deck = tiny_models.deck_of(model_type)
    config, skipped = TOP[kind]
    tiny_models.add_stirred(deck, "a", config)
    layers = deck.base.layers
    assert layers is not None
    ran: list[int] = []
    first_linear = next(
        m
        for m in layers[0].modules()
        if isinstance(weight := getattr(m, "weight", None), torch.Tensor) and weight.dim() == 2
    )
    first_linear.register_forward_hook(lambda *_: ran.append(1))
    objective = objective_of(deck, "a")
    for rows in ([0, 1, 2], [3, 4]):
        objective.loss(rows)
    assert first_trained_layer(deck.base, deck.adapter("a")) == skipped
    fresh, mixed = objective_of(deck, "a"), [4, 0, 3]  # in another batch, of another width
    expected, _ = fresh.loss(mixed)
    expected.backward()
    wanted = gradients(deck, "a")
    deck.adapter("a").zero_grad()
    runs = len(ran)
    loss, _ = objective.loss(mixed)
    loss.backward()
    assert len(ran) == runs
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert wanted
    assert all(tiny_models.difference(a, b) < 1e-6 for a, b in zip(gradients(deck, "a"), wanted, strict=True))
    objective.evaluate()
    assert len(ran) > runs


@pytest.mark.parametrize("kind", WHOLE)
def test_nothing_is_skipped_where_the_first_layer_is_trained(kind: str) -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", WHOLE[kind])
    assert first_trained_layer(deck.base, deck.adapter("a")) == 0


def test_nothing_is_kept_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_layers, "free_bytes", lambda device: 0)
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.FullConfig(layers="head"))
    ran: list[int] = []
    query = deck.model.bert.encoder.layer[0].attention.self.query  # the layer's own hooks run even where it is skipped
    query.register_forward_hook(lambda *_: ran.append(1))
    objective = objective_of(deck, "a")
    objective.loss([0, 1])
    objective.loss([0, 1])
    assert len(ran) == 2
