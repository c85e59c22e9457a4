"""PEFT loads what we save and we load what PEFT saves, with the same logits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from support.tiny_models import (
    HIDDEN,
    LABELS,
    LAYERS,
    VOCAB,
    add_stirred,
    deck_of,
    difference,
    folder_of,
    logits_of,
    rows_of,
    token_batch,
)

import tunedeck as td
from tunedeck.export.folders import convert_adapter
from tunedeck.methods.base import MethodConfig

FOUR_LABELS = ("n", "e", "s", "w")
EVERYWHERE: dict[str, MethodConfig] = {
    "defaults": td.LoraConfig(),
    "all-linear": td.LoraConfig(r=3, lora_alpha=12, target_modules="all-linear"),
    "rslora": td.LoraConfig(r=4, use_rslora=True, target_modules="all-linear"),
    "second layer": td.LoraConfig(r=2, layers_to_transform=(1,)),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "ia3": td.Ia3Config(),
    "prefix": td.PrefixTuningConfig(num_virtual_tokens=5, shift_positions=True),
    "dora": td.LoraConfig(r=4, target_modules="all-linear", use_dora=True),
}
BERT = {
    "names": td.LoraConfig(target_modules=("query", "output.dense")),
    "a name that a pooler has too": td.LoraConfig(target_modules=("query", "dense")),
    "regular expression": td.LoraConfig(target_modules=r".*layer\.\d+\.(attention\.self\.(query|key)|output\.dense)"),
    "patterns": td.LoraConfig(
        r=4, target_modules=("query", "value"), rank_pattern={"query": 2}, alpha_pattern={r"layer\.1\..*value": 3}
    ),
    "one layer by its path": td.LoraConfig(target_modules=("encoder.layer.1.attention.self.value",)),
}
WRITTEN = [
    *(("bert", "classifier", name, config) for name, config in {**EVERYWHERE, **BERT}.items()),
    *(("llama", "causal", name, config) for name, config in EVERYWHERE.items()),
    *(("llama", "classifier", name, config) for name, config in EVERYWHERE.items()),
    *(
        (model_type, "classifier", name, EVERYWHERE[name])
        for model_type in ("roberta", "distilbert", "modernbert", "gpt2")
        for name in ("all-linear", "prompt", "ia3", "dora")
    ),
    ("gpt2", "causal", "all-linear", EVERYWHERE["all-linear"]),
    *(
        (model_type, "causal", "prefix", EVERYWHERE["prefix"])
        for model_type in ("gpt2", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "glm")
    ),
    *((model_type, "classifier", "prefix", EVERYWHERE["prefix"]) for model_type in ("roberta", "xlm-roberta")),
]


def plain_model(model_type: str, form: str, num_labels: int = len(LABELS), seed: int = 0) -> Any:
    auto = transformers.AutoModelForCausalLM if form == "causal" else transformers.AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        return auto.from_pretrained(
            folder_of(model_type, "causal" if form == "causal" else "classifier", seed),
            num_labels=num_labels,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        ).eval()


def their_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(**batch).logits
    return logits[:, -batch["input_ids"].shape[1] :] if logits.dim() == 3 else logits


@pytest.mark.parametrize(
    ("model_type", "form", "config"),
    [pytest.param(*case[:2], case[3], id="-".join(case[:3]).replace(" ", "-")) for case in WRITTEN],
)
def test_peft_loads_what_we_save_with_the_same_logits(
    model_type: str, form: str, config: MethodConfig, tmp_path: Path
) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    labels = FOUR_LABELS if form == "classifier" else None
    add_stirred(deck, "ours", config, labels=labels)
    deck.save("ours", tmp_path / "ours")
    if model_type in ("llama", "gpt2") and form == "classifier" and config.kind == "prompt_tuning":
        batch = rows_of(batch, [0])  # PEFT hands over inputs_embeds, and transformers then pools padded rows elsewhere
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = plain_model(model_type, form, len(FOUR_LABELS))
        if config.kind == "prefix_tuning" and model_type in ("bert", "roberta", "xlm-roberta", "gpt2"):
            del plain.config.num_key_value_heads  # ours for all tiny models; PEFT reads it where nothing else does
        theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path / "ours"))
    assert not [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
    assert difference(their_logits(theirs.eval(), batch), logits_of(deck, batch, "ours")) < 1e-5


def stirred_peft(model: Any, config: peft.PeftConfig) -> Any:
    torch.manual_seed(3)
    theirs = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return theirs.eval()


THEIRS: dict[str, dict[str, Any]] = {
    "names": {"target_modules": ["query", "value"]},
    "all-linear": {"target_modules": "all-linear", "use_rslora": True},
    "a name that the pooler has too": {"target_modules": ["dense"]},
    "regular expression": {"target_modules": r".*\.(query|output\.dense)"},
    "layers": {"target_modules": ["query"], "layers_to_transform": [1]},
    "one layer as a number": {"target_modules": ["query"], "layers_to_transform": 0, "layers_pattern": "layer"},
    "exclusions": {"target_modules": ["query", "value"], "exclude_modules": ["encoder.layer.0.attention.self.value"]},
    "patterns": {
        "target_modules": ["query", "value"],
        "rank_pattern": {"query": 2},
        "alpha_pattern": {"layer.1.attention.self.value": 3},
    },
    "default targets": {},
}


@pytest.mark.parametrize("settings", THEIRS.values(), ids=[name.replace(" ", "-") for name in THEIRS])
def test_we_load_what_peft_saves_with_the_same_logits(settings: dict[str, Any], tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=12, **settings)
    theirs = stirred_peft(plain_model("bert", "classifier", 4), config)
    theirs.save_pretrained(tmp_path)
    deck, batch = deck_of("bert"), token_batch()
    deck.load_adapter(tmp_path, name="theirs")
    assert difference(logits_of(deck, batch, "theirs"), their_logits(theirs, batch)) < 1e-5
    assert deck.label_names("theirs") == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    written = tmp_path / "again"
    deck.save("theirs", written)
    deck.load_adapter(written, name="again")
    assert torch.equal(logits_of(deck, batch, "again"), logits_of(deck, batch, "theirs"))
    again = peft.PeftModel.from_pretrained(plain_model("bert", "classifier", 4), str(written)).eval()
    assert difference(their_logits(again, batch), their_logits(theirs, batch)) < 1e-5


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "modernbert", "llama", "gpt2"])
@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_we_load_peft_classifiers_of_every_architecture(model_type: str, kind: str, tmp_path: Path) -> None:
    if kind == "lora":
        targets = (
            ["q_lin", "lin1"] if model_type == "distilbert" else "all-linear"
        )  # peft fails there on pre_classifier
        config: peft.PeftConfig = peft.LoraConfig(task_type="SEQ_CLS", target_modules=targets)
    else:
        sizes: dict[str, Any] = {"token_dim": HIDDEN, "num_layers": LAYERS, "num_attention_heads": 4}
        config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3, **sizes)
    theirs = stirred_peft(plain_model(model_type, "classifier", 4), config)
    theirs.save_pretrained(tmp_path)
    deck, batch = deck_of(model_type), token_batch()
    if kind == "prompt" and model_type in ("llama", "gpt2"):
        batch = rows_of(batch, [0])
    deck.load_adapter(tmp_path, name="theirs")
    assert difference(logits_of(deck, batch, "theirs"), their_logits(theirs, batch)) < 1e-5


def test_we_load_an_adapter_of_a_base_without_a_task(tmp_path: Path) -> None:
    plain = transformers.AutoModel.from_pretrained(folder_of("bert", "classifier"), dtype=torch.float32)
    config = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION", target_modules=["query", "key"], rank_pattern={"encoder.layer.1.*key": 2}
    )
    theirs = stirred_peft(plain, config)
    theirs.save_pretrained(tmp_path)
    deck, batch = deck_of("bert"), token_batch()
    deck.load_adapter(tmp_path, name="theirs")  # the base brings a trained head, the adapter none
    with torch.no_grad():
        expected = deck.model.classifier(theirs(**batch).pooler_output)
    assert difference(logits_of(deck, batch, "theirs"), expected) < 1e-5
    assert deck.label_names("theirs") == deck.label_names(None)
    deck.save("theirs", tmp_path / "again")
    deck.load_adapter(tmp_path / "again")
    assert torch.equal(logits_of(deck, batch, "again"), logits_of(deck, batch, "theirs"))


def test_an_adapter_without_a_head_is_refused_on_a_base_without_one(tmp_path: Path) -> None:
    plain = transformers.AutoModel.from_pretrained(folder_of("bert", "plain"), dtype=torch.float32)
    stirred_peft(plain, peft.LoraConfig(target_modules=["query"])).save_pretrained(tmp_path)
    deck = td.Deck.load(folder_of("bert", "plain"), td.Classify(labels=LABELS), dtype="float32")
    with pytest.raises(td.TunedeckError, match=r"has no classifier, and the base .* has no trained one"):
        deck.load_adapter(tmp_path, name="theirs")


def test_we_load_a_causal_adapter_of_peft(tmp_path: Path) -> None:
    for number, config in enumerate(
        (
            peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"),
            peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        )
    ):
        theirs = stirred_peft(plain_model("llama", "causal"), config)
        theirs.save_pretrained(tmp_path / str(number))
        deck, batch = deck_of("llama", "causal"), token_batch()
        deck.load_adapter(tmp_path / str(number), name="theirs")
        ours = logits_of(deck, batch, "theirs")
        assert ours.shape == (4, 9, VOCAB)
        assert difference(ours, their_logits(theirs, batch)) < 1e-5


def test_peft_loads_the_norms_that_we_write_with_the_same_logits(tmp_path: Path) -> None:
    deck, batch, base = deck_of("bert"), token_batch(), folder_of("bert", "classifier")
    add_stirred(deck, "ours", td.BiasConfig("norms"))
    deck.save("ours", tmp_path / "ours")
    convert_adapter(tmp_path / "ours", tmp_path / "theirs", "peft", model=base)
    theirs = peft.PeftModel.from_pretrained(plain_model("bert", "classifier"), str(tmp_path / "theirs")).eval()
    assert difference(their_logits(theirs, batch), logits_of(deck, batch, "ours")) < 1e-6


def test_a_config_in_the_oldest_form_loads(tmp_path: Path) -> None:
    theirs = stirred_peft(
        plain_model("bert", "classifier"), peft.LoraConfig(task_type="SEQ_CLS", lora_alpha=8, target_modules=["query"])
    )
    theirs.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["query"]}')
    deck, batch = deck_of("bert"), token_batch()
    deck.load_adapter(tmp_path, name="theirs")
    assert difference(logits_of(deck, batch, "theirs"), their_logits(theirs, batch)) < 1e-5
    assert deck.label_names("theirs") == LABELS  # three, as the deck's own: they are taken for the same


def test_the_saved_config_says_what_peft_needs(tmp_path: Path) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "ours", td.LoraConfig(r=4, lora_alpha=8))
    deck.save("ours", tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": 4,
        "lora_alpha": 8,
        "inference_mode": True,
        "modules_to_save": ["classifier"],
        "base_model_name_or_path": folder_of("bert", "classifier"),
    }
    assert config.items() >= expected.items()
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tunedeck.json",
    ]
