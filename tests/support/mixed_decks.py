"""Tiny decks with an adapter of every kind."""

from __future__ import annotations

from functools import cache

import tunedeck as td
from support.tiny_models import add_stirred, deck_of
from tunedeck.methods.base import MethodConfig

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "dora": td.LoraConfig(r=2, use_dora=True),
    "ia3": td.Ia3Config(),
    "bias": td.BiasConfig(),
    "seq_bn": td.BottleneckConfig("seq_bn"),
    "double_seq_bn": td.BottleneckConfig("double_seq_bn"),
    "par_bn": td.BottleneckConfig("par_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "prefix": td.PrefixTuningConfig(num_virtual_tokens=4),
    "full": td.FullConfig(1),
}
NUMBER_OF_LABELS = {
    "lora": 2,
    "dora": 3,
    "ia3": 4,
    "bias": 2,
    "seq_bn": 3,
    "double_seq_bn": 4,
    "par_bn": 3,
    "prompt": 5,
    "prefix": 3,
    "full": 2,
}


@cache
def full_deck(model_type: str, form: str) -> td.Deck:
    """A deck with one adapter of each kind and a second of some, each with its own number of labels."""
    deck = deck_of(model_type, form)
    for seed, (name, config) in enumerate(KINDS.items()):
        count = NUMBER_OF_LABELS[name]
        labels = [f"{name}-{index}" for index in range(count)] if form == "classifier" else None
        add_stirred(deck, name, config, labels=labels, seed=seed)
    add_stirred(deck, "lora-2", td.LoraConfig(r=2), seed=10)
    add_stirred(deck, "lora-3", td.LoraConfig(r=3, use_rslora=True), seed=11)
    add_stirred(deck, "prompt-2", td.PromptTuningConfig(num_virtual_tokens=2), seed=12)
    add_stirred(deck, "prefix-2", td.PrefixTuningConfig(num_virtual_tokens=7), seed=13)
    return deck
