"""Saved adapters of each kind that a test may damage, and the check that one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunedeck as td
from support.tiny_models import add_stirred, deck_of, hook_count
from tunedeck.methods.base import MethodConfig

LORA, BOTTLENECK, PROMPT, FULL = td.LoraConfig(r=4), td.BottleneckConfig(), td.PromptTuningConfig(3), td.FullConfig(1)
KINDS: dict[str, MethodConfig] = {
    "lora": LORA,
    "bottleneck": BOTTLENECK,
    "prompt": PROMPT,
    "full": FULL,
    "ia3": td.Ia3Config(),
    "prefix": td.PrefixTuningConfig(3, shift_positions=True),
}
WEIGHTS = {
    "lora": "adapter_model.safetensors",
    "prompt": "adapter_model.safetensors",
    "full": "model.safetensors",
    "ia3": "adapter_model.safetensors",
    "prefix": "adapter_model.safetensors",
    "bottleneck": "pytorch_adapter.bin",
}
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"


def saved(tmp_path: Path, kind: str, *, manifest: bool = True) -> Path:
    deck = deck_of("bert")
    add_stirred(deck, kind, KINDS[kind])
    deck.save(kind, tmp_path / kind)
    if not manifest:
        (tmp_path / kind / "tunedeck.json").unlink()
    return tmp_path / kind


def refused(folder: Path, error: type[Exception], message: str, **options: Any) -> None:
    deck = deck_of("bert")
    with pytest.raises(error, match=message):
        deck.load_adapter(folder, **options)
    assert deck.adapters == ()
    assert hook_count(deck.model) == 0
