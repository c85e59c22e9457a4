"""What is written for vLLM: PEFT folders, the command, and refusals of what vLLM 0.33 refuses."""

from __future__ import annotations

import json
import shlex
import stat
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers
from support.tiny_models import LABELS, add_stirred, deck_of, folder_of, tiny_model

import tunedeck as td
from tunedeck.core.errors import AdapterError, ConfigError, StorageError, UnsupportedKindError
from tunedeck.export.standalone import OpenedAdapter, open_adapter
from tunedeck.export.vllm import SCRIPT, save_vllm


def opened(
    tmp_path: Path, config: Any, name: str = "a", model_type: str = "llama", form: str = "causal"
) -> OpenedAdapter:
    deck = deck_of(model_type, form)
    add_stirred(deck, name, config)
    deck.save(name, tmp_path / name)
    return open_adapter(tmp_path / name)


def test_several_adapters_share_one_command_with_the_rank_that_vllm_allows(tmp_path: Path) -> None:
    adapters = {
        "de": opened(tmp_path, td.LoraConfig(r=4), "de"),
        "law": opened(tmp_path, td.LoraConfig(r=8, rank_pattern={"q_proj": 17}, use_rslora=True), "law"),
    }
    command = save_vllm(adapters, tmp_path / "out")
    base = folder_of("llama", "causal")
    expected = f"vllm serve {base} --enable-lora --max-lora-rank 32 --max-loras 2 --lora-modules de=de law=law"
    assert shlex.split(command) == expected.split()
    script = tmp_path / "out" / SCRIPT
    assert script.read_text().endswith(f"exec {command}\n")
    assert stat.S_IMODE(script.stat().st_mode) & 0o444
    for name, r in (("de", 4), ("law", 8)):
        config = json.loads((tmp_path / "out" / name / "adapter_config.json").read_text())
        assert (config["peft_type"], config["r"], config["use_dora"], config["bias"]) == ("LORA", r, False, "none")
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        peft.PeftModel.from_pretrained(model, str(tmp_path / "out" / name))


@pytest.mark.parametrize(("r", "allowed"), [(1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512)])
def test_the_rank_is_the_next_that_vllm_allows(r: int, allowed: int, tmp_path: Path) -> None:
    command = save_vllm({"a": opened(tmp_path, td.LoraConfig(r=r))}, tmp_path / "out")
    assert f"--max-lora-rank {allowed} " in command


def test_an_adapterhub_lora_is_written_for_vllm_too(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "adapterhub-llama-lora"
    command = save_vllm({"a": open_adapter(golden / "adapter", str(golden / "base"))}, tmp_path / "out")
    assert "--max-lora-rank 8 --lora-modules a=a" in command


def test_a_classifier_is_served_over_a_base_that_is_one(tmp_path: Path) -> None:
    command = save_vllm({"a": opened(tmp_path, td.LoraConfig(), form="classifier")}, tmp_path / "out")
    assert f"--runner pooling --max-lora-cls-labels {len(LABELS)} --enable-lora" in command
    config = json.loads((tmp_path / "out" / "a" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["score"]


def bare_base_classifier(tmp_path: Path) -> OpenedAdapter:
    tiny_model("llama", "plain").save_pretrained(tmp_path / "base")
    deck = td.Deck.load(str(tmp_path / "base"), td.Classify(labels=LABELS), dtype="float32")
    add_stirred(deck, "a", td.LoraConfig())
    deck.save("a", tmp_path / "a")
    return open_adapter(tmp_path / "a")


@pytest.mark.parametrize(
    ("model_type", "form", "config", "reason"),
    [
        ("llama", "causal", td.BottleneckConfig(), "vLLM serves LoRA only.*bottleneck.*train lora"),
        ("llama", "causal", td.PromptTuningConfig(), "vLLM serves LoRA only.*prompt_tuning"),
        ("llama", "causal", td.FullConfig(), "vLLM serves LoRA only.*full"),
        ("llama", "causal", td.LoraConfig(r=513), "rank 513, vLLM takes up to 512; tunedeck export merge"),
        ("gpt2", "causal", td.LoraConfig(), "no LoRA for generate on gpt2 models"),
        ("distilbert", "classifier", td.LoraConfig(), "no LoRA for classify on distilbert models"),
    ],
)
def test_what_vllm_does_not_take_is_refused_with_a_way_on(
    model_type: str, form: str, config: Any, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedKindError, match=reason):
        save_vllm({"a": opened(tmp_path, config, model_type=model_type, form=form)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_over_a_bare_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedKindError, match="over a base that has one itself"):
        save_vllm({"a": bare_base_classifier(tmp_path)}, tmp_path / "out")


def test_a_head_of_several_modules_is_refused(tmp_path: Path) -> None:
    adapter = opened(tmp_path, td.LoraConfig(), model_type="bert", form="classifier")
    adapter.stored.head["bert.pooler.dense.weight"] = next(iter(adapter.stored.head.values()))
    with pytest.raises(
        UnsupportedKindError, match=r"one linear layer with the name classifier, score.*bert\.pooler\.dense, classifier"
    ):
        save_vllm({"a": adapter}, tmp_path / "out")


def test_other_bases_names_and_places_are_refused(tmp_path: Path) -> None:
    llama, qwen = opened(tmp_path, td.LoraConfig()), opened(tmp_path, td.LoraConfig(), "b", "qwen2")
    with pytest.raises(AdapterError, match=r"one vLLM serves one base for one task.*export separately: b"):
        save_vllm({"a": llama, "b": qwen}, tmp_path / "out")
    with pytest.raises(ConfigError, match="cannot be named in vLLM's --lora-modules"):
        save_vllm({"a,b": llama}, tmp_path / "out")
    with pytest.raises(StorageError, match="already exists; choose another path"):
        save_vllm({"a": llama}, tmp_path)
