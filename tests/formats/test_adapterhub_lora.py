"""LoRA in AdapterHub's form: what its library wrote is written again the same, and what it has no place for is
refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.golden_adapters import CASES, GOLDEN
from support.tiny_models import add_stirred, deck_of, folder_of, logits_of, token_batch

import tunedeck as td
from tunedeck.core.errors import UnsupportedKindError
from tunedeck.export.folders import convert_adapter
from tunedeck.methods.base import MethodConfig

LORA = [case for case in CASES if case.startswith("adapterhub") and ("lora" in case or "ia3" in case)]
ATTENTION = ("q_proj", "v_proj")


def load_bin(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("case", LORA)
def test_a_golden_folder_is_the_same_after_a_way_through_peft(case: str, tmp_path: Path) -> None:
    golden, base = GOLDEN / case / "adapter", str(GOLDEN / case / "base")
    assert convert_adapter(golden, tmp_path / "peft", "peft", model=base) == "peft"
    assert config_of(tmp_path / "peft")["peft_type"] == ("IA3" if "ia3" in case else "LORA")
    convert_adapter(tmp_path / "peft", tmp_path / "t", "adapterhub", model=base)
    expected, found = config_of(golden), config_of(tmp_path / "t")
    assert found.pop("model_name") == base
    expected.pop("model_name")
    assert json.dumps(found) == json.dumps(expected)
    for file in golden.glob("*.bin"):
        theirs, written = load_bin(file), load_bin(tmp_path / "t" / file.name)
        assert written.keys() == theirs.keys()
        assert all(torch.equal(written[key], tensor) for key, tensor in theirs.items())


@pytest.mark.parametrize("case", LORA)
def test_the_peft_form_of_a_golden_folder_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    base = str(GOLDEN / case / "base")
    convert_adapter(GOLDEN / case / "adapter", tmp_path / "peft", "peft", model=base)
    task: Any = td.Generate() if "llama" in case or "qwen2" in case else td.Classify()
    deck = td.Deck.load(base, task=task, dtype="float32")
    deck.load_adapter(GOLDEN / case / "adapter", name="hub")
    deck.load_adapter(tmp_path / "peft")
    batch = token_batch()
    assert torch.equal(logits_of(deck, batch, "peft"), logits_of(deck, batch, "hub"))


HELD: dict[str, tuple[MethodConfig, dict[str, Any]]] = {
    "defaults": (td.LoraConfig(), {"alpha": 16, "attn_matrices": ["q", "v"], "r": 8, "leave_out": []}),
    "rslora": (td.LoraConfig(r=4, lora_alpha=8, use_rslora=True), {"alpha": 16, "r": 4}),
    "a scale that is no whole number": (td.LoraConfig(r=8, lora_alpha=3, use_rslora=True), {"r": 8}),
    "one alpha for all by a pattern": (td.LoraConfig(r=4, alpha_pattern={".*_proj": 2}), {"alpha": 2, "r": 4}),
    "(IA)³ in the second layer": (
        td.Ia3Config(r".*layers\.1\..*(k_proj|down_proj)", feedforward_modules=()),
        {"composition_mode": "scale", "attn_matrices": ["k"], "intermediate_lora": True, "leave_out": [0]},
    ),
    "second layer": (td.LoraConfig(layers_to_transform=(1,)), {"leave_out": [0]}),
    "up and down": (
        td.LoraConfig(target_modules=("up_proj",)),
        {"selfattn_lora": False, "intermediate_lora": False, "output_lora": True},
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_a_lora_that_adapterhub_can_hold_comes_back_with_the_same_logits(name: str, tmp_path: Path) -> None:
    config, expected = HELD[name]
    deck, batch = deck_of("llama", "causal"), token_batch()
    add_stirred(deck, "t", config)
    deck.save("t", tmp_path / "t")
    convert_adapter(tmp_path / "t", tmp_path / "hub", "adapterhub")
    assert config_of(tmp_path / "hub")["config"].items() >= expected.items()
    deck.load_adapter(tmp_path / "hub")
    assert (logits_of(deck, batch, "hub") - logits_of(deck, batch, "t")).abs().max() < 1e-6


REFUSED: dict[str, tuple[MethodConfig, str]] = {
    "another place": (td.LoraConfig(target_modules=("q_proj", "o_proj")), r"a patch at model\.layers\.0\..*o_proj"),
    "other places in other layers": (
        td.LoraConfig(target_modules=r".*(layers\.0\..*q_proj|layers\.1\..*v_proj)"),
        "its layers have patches at different places",
    ),
    "magnitudes": (td.LoraConfig(use_dora=True), "it has magnitudes"),
    "scaled inputs": (td.Ia3Config(), r"it scales the input of model\.layers\.0\.mlp\.down_proj"),
    "two ranks": (td.LoraConfig(target_modules=ATTENTION, rank_pattern={"q_proj": 2}), "different ranks or scales"),
    "two scales": (td.LoraConfig(target_modules=ATTENTION, alpha_pattern={"q_proj": 2}), "different ranks or scales"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_lora_that_adapterhub_cannot_hold_is_refused_with_the_reason_and_a_way_on(name: str, tmp_path: Path) -> None:
    config, reason = REFUSED[name]
    deck = deck_of("llama", "causal")
    add_stirred(deck, "t", config)
    deck.save("t", tmp_path / "t")
    with pytest.raises(UnsupportedKindError, match=f"AdapterHub cannot hold this adapter: .*{reason}.*--to peft"):
        convert_adapter(tmp_path / "t", tmp_path / "hub", "adapterhub")
    assert not (tmp_path / "hub").exists()


def test_a_model_that_adapterhub_does_not_know_is_refused(tmp_path: Path) -> None:
    deck = deck_of("gemma", "causal")
    add_stirred(deck, "t", td.LoraConfig())
    deck.save("t", tmp_path / "t")
    with pytest.raises(UnsupportedKindError, match="AdapterHub has no LoRA for gemma models"):
        convert_adapter(tmp_path / "t", tmp_path / "hub", "adapterhub")


def changed_copy(tmp_path: Path, **changes: Any) -> Path:
    folder = tmp_path / "changed"
    folder.mkdir()
    golden = GOLDEN / "adapterhub-llama-lora" / "adapter"
    (folder / "pytorch_adapter.bin").write_bytes((golden / "pytorch_adapter.bin").read_bytes())
    config = config_of(golden)
    version = changes.pop("version", config["version"])
    config["config"].update(changes)
    (folder / "adapter_config.json").write_text(json.dumps({**config, "version": version}))
    return folder


@pytest.mark.parametrize(("version", "alpha"), [("adapters.1.0.1", 4.0), ("adapters.1.1.0", 12.0)])
def test_files_from_before_the_scale_was_divided_by_r_keep_the_scale_they_were_trained_with(
    version: str, alpha: float, tmp_path: Path
) -> None:
    deck = td.Deck.load(str(GOLDEN / "adapterhub-llama-lora" / "base"), td.Generate(), dtype="float32")
    deck.load_adapter(changed_copy(tmp_path, version=version), "t")
    config = deck.adapter("t").config
    assert isinstance(config, td.LoraConfig)
    assert config.lora_alpha == alpha


@pytest.mark.parametrize(
    "change",
    [{"alpha": 12, "composition_mode": "scale"}, {"use_dora": True}, {"use_gating": True}, {"vera_d": 0.1}],
    ids=str,
)
def test_a_relative_of_lora_that_computes_something_else_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    base = str(GOLDEN / "adapterhub-llama-lora" / "base")
    with pytest.raises(UnsupportedKindError, match=next(iter(change))):
        convert_adapter(changed_copy(tmp_path, **change), tmp_path / "x", "peft", model=base)


@pytest.mark.parametrize(
    ("kind", "config", "to", "reason"),
    [
        ("bottleneck", td.BottleneckConfig(), "peft", "PEFT has no bottleneck adapters"),
        ("prompt", td.PromptTuningConfig(), "adapterhub", "AdapterHub's prompt tuning is another method"),
        ("full", td.FullConfig("head"), "peft", "tunedeck export merge"),
        ("full", td.FullConfig("head"), "adapterhub", "tunedeck export merge"),
        ("lora", td.LoraConfig(), "tunedeck", "is kept as peft"),
    ],
)
def test_a_form_that_has_no_place_for_a_kind_is_refused(
    kind: str, config: Any, to: str, reason: str, tmp_path: Path
) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "t", config)
    deck.save("t", tmp_path / "t")
    with pytest.raises(UnsupportedKindError, match=reason):
        convert_adapter(tmp_path / "t", tmp_path / "x", to)
    assert not (tmp_path / "x").exists()


def test_prompt_tuning_of_adapterhub_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = changed_copy(tmp_path, architecture="prompt_tuning")
    with pytest.raises(UnsupportedKindError, match="virtual tokens come after the embedding layer"):
        convert_adapter(folder, tmp_path / "x", "peft", model=folder_of("llama", "causal"))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(td.TunedeckError, match="tensors do not fit this base: missing bert"):
        convert_adapter(
            GOLDEN / "adapterhub-llama-lora" / "adapter", tmp_path / "x", "peft", model=folder_of("bert", "classifier")
        )
    assert not (tmp_path / "x").exists()
