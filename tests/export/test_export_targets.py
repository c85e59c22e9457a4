"""What the targets of an export say of an adapter before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models

import tunedeck as td
from tunedeck.export.targets import refusals
from tunedeck.methods.base import MethodConfig


@pytest.mark.parametrize(
    ("config", "form", "possible"),
    [
        (td.LoraConfig(r=4), "causal", {"merge", "peft", "adapterhub", "gguf-lora", "vllm", "card"}),
        (td.BottleneckConfig("seq_bn"), "causal", {"adapterhub", "card"}),
        (td.PromptTuningConfig(num_virtual_tokens=3), "causal", {"peft", "card"}),
        (td.LoraConfig(r=4), "classifier", {"merge", "onnx", "peft", "adapterhub", "vllm", "card"}),
    ],
)
def test_the_refusals_are_those_of_the_exports(
    config: MethodConfig, form: str, possible: set[str], tmp_path: Path
) -> None:
    deck = tiny_models.deck_of("bert" if form == "classifier" else "llama", form)
    tiny_models.add_stirred(deck, "a", config)
    deck.save("a", tmp_path / "a")
    found = refusals(tmp_path / "a")
    assert {target for target, reason in found.items() if reason is None} == possible
    assert all(reason is None or len(reason) > 20 for reason in found.values())
