"""What is written for llama.cpp, read by the gguf library: names, shapes, scale and the patch itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from support.tiny_models import add_stirred, deck_of, difference

import tunedeck as td
from tunedeck.core.errors import ConfigError, StorageError, UnsupportedKindError
from tunedeck.export.gguf_lora import ARCHITECTURES, save_gguf_lora
from tunedeck.export.standalone import open_adapter
from tunedeck.methods.lora.layer import LoraLayer

HEADS, KEY_HEADS, HEAD = 4, 2, 8
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONFIGS = {
    "plain": td.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear"),
    "rslora": td.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules="all-linear"),
    "patterns": td.LoraConfig(
        r=4, target_modules="all-linear", rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 5}, use_rslora=True
    ),
}


def exported(
    tmp_path: Path, config: Any, model_type: str = "llama", form: str = "causal", dtype: str = "f32"
) -> tuple[td.Deck, Any]:
    deck = deck_of(model_type, form)
    add_stirred(deck, "a", config)
    deck.save("a", tmp_path / "a")
    file = tmp_path / "a.gguf"
    save_gguf_lora(open_adapter(tmp_path / "a"), file, dtype)
    return deck, gguf.GGUFReader(file)


def interleaved(heads: int) -> list[int]:
    """Of each head, row i of its first half and row i of its second stand together: what llama.cpp's rotation reads."""
    return [
        head * HEAD + half * HEAD // 2 + row for head in range(heads) for row in range(HEAD // 2) for half in (0, 1)
    ]


def patch_in(reader: Any, tensor: str) -> torch.Tensor:
    found = {one.name: one for one in reader.tensors}
    a, b = (found[f"{tensor}.weight.lora_{half}"] for half in "ab")
    alpha = reader.fields["adapter.lora.alpha"].contents()
    a, b = (np.asarray(gguf.dequantize(one.data, one.tensor_type), dtype=np.float32) for one in (a, b))
    return torch.from_numpy(np.float32(alpha) / len(a) * (b @ a))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_the_patch_in_the_file_is_that_of_the_deck(config: td.LoraConfig, model_type: str, tmp_path: Path) -> None:
    deck, reader = exported(tmp_path, config, model_type)
    assert len(reader.tensors) == 2 * 2 * len(NAMES)
    for path, placement in deck.adapter("a").built.placements.items():
        _, _, layer, inside = path.split(".", 3)
        assert isinstance(placement.layer, LoraLayer)
        delta = placement.layer.delta().detach()
        if model_type in ("llama", "mistral") and inside in ("self_attn.q_proj", "self_attn.k_proj"):
            delta = delta[interleaved(HEADS if inside.endswith("q_proj") else KEY_HEADS)]
        assert difference(patch_in(reader, f"blk.{layer}.{NAMES[inside]}"), delta) < 1e-6


def test_the_file_says_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    _, reader = exported(tmp_path, CONFIGS["rslora"])
    said = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert said == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 12.0,  # rslora: 6 / sqrt(4) = 12 / 4
        "general.file_type": 0,
    }
    shapes = {tensor.name: tuple(tensor.shape) for tensor in reader.tensors}
    assert shapes["blk.0.ffn_up.weight.lora_a"] == (32, 4)  # in, r: what varies fastest stands first
    assert shapes["blk.0.ffn_up.weight.lora_b"] == (4, 64)


@pytest.mark.parametrize(("dtype", "rounding"), [("f16", 2e-3), ("bf16", 2e-2)])
def test_smaller_types_round_and_no_more(dtype: str, rounding: float, tmp_path: Path) -> None:
    deck, reader = exported(tmp_path, CONFIGS["plain"], dtype=dtype)
    assert {tensor.tensor_type.name.lower() for tensor in reader.tensors} == {dtype}
    layer = deck.adapter("a").built.placements["model.layers.1.mlp.up_proj"].layer
    assert isinstance(layer, LoraLayer)
    delta = layer.delta().detach()
    found = difference(patch_in(reader, "blk.1.ffn_up"), delta)
    assert 0 < found < rounding * delta.abs().max()


@pytest.mark.parametrize(
    ("model_type", "form", "config", "reason"),
    [
        ("llama", "causal", td.BottleneckConfig(), "llama.cpp applies LoRA only.*bottleneck.*train lora"),
        ("llama", "causal", td.PromptTuningConfig(), "llama.cpp applies LoRA only.*prompt_tuning"),
        ("llama", "causal", td.FullConfig(), "llama.cpp applies LoRA only.*full"),
        ("llama", "classifier", td.LoraConfig(), r"cannot load an adapter's classification head \(score\)"),
        ("gpt2", "causal", td.LoraConfig(), "LoRA on gpt2 models is not written for llama.cpp.*export merge"),
    ],
)
def test_what_llama_cpp_cannot_run_is_refused_with_a_way_on(
    model_type: str, form: str, config: Any, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedKindError, match=reason):
        exported(tmp_path, config, model_type, form)
    assert not (tmp_path / "a.gguf").exists()


def test_a_file_that_exists_another_ending_and_another_type_are_refused(tmp_path: Path) -> None:
    exported(tmp_path, CONFIGS["plain"])
    opened = open_adapter(tmp_path / "a")
    before = (tmp_path / "a.gguf").read_bytes()
    with pytest.raises(StorageError, match="already exists; choose another path"):
        save_gguf_lora(opened, tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == before
    with pytest.raises(ConfigError, match=r"must end in \.gguf"):
        save_gguf_lora(opened, tmp_path / "a.bin")
    with pytest.raises(ConfigError, match="unknown dtype 'q4'"):
        save_gguf_lora(opened, tmp_path / "b.gguf", "q4")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.gguf"]


def test_a_file_that_reads_back_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path, CONFIGS["plain"])
    quantize = gguf.quantize
    monkeypatch.setattr(gguf, "quantize", lambda data, kind: quantize(data * 1.01, kind))
    with pytest.raises(StorageError, match="read back has another adapter"):
        save_gguf_lora(open_adapter(tmp_path / "a"), tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()
