"""Classifiers that read the first position alone give the same logits when the rest is not computed."""

from __future__ import annotations

import pytest
import torch
from support import tiny_models

import tunedeck as td
from tunedeck.deck.patches.first_position import FirstPositionOnly
from tunedeck.methods.base import MethodConfig

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(target_modules="all-linear"),
    "double": td.BottleneckConfig("double_seq_bn"),
    "parallel": td.BottleneckConfig("par_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
    "full": td.FullConfig(),
}


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_the_logits_of_a_mixed_batch_stay_the_same(model_type: str) -> None:
    deck = tiny_models.deck_of(model_type)
    for seed, (name, config) in enumerate(KINDS.items()):
        tiny_models.add_stirred(deck, name, config, seed=seed)
    ids = torch.randint(4, tiny_models.VOCAB, (6, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    names = [*KINDS, None]
    widths: list[int] = []
    layers = deck.base.layers
    assert layers is not None
    with torch.no_grad():
        whole = deck(ids, mask, adapter=names).logits
        layers[-1].register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
        with FirstPositionOnly().on(deck.base):
            first = deck(ids, mask, adapter=names).logits
    assert set(widths) == {1}
    assert tiny_models.difference(whole, first) < 1e-6
    with torch.no_grad():
        assert tiny_models.difference(deck(ids, mask, adapter=names).logits, whole) == 0


def test_a_classifier_that_reads_the_last_token_is_left_alone() -> None:
    deck = tiny_models.deck_of("llama")
    ids = torch.randint(4, tiny_models.VOCAB, (2, 5))
    with torch.no_grad(), FirstPositionOnly().on(deck.base):
        assert deck(ids).logits.shape == (2, len(tiny_models.LABELS))
