"""Adapters of a base without a head: names as PEFT and AdapterHub have them there, parity with peft, one
fingerprint.
"""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support import tiny_models
from support.embedding_decks import CONFIGS, TEXTS, embed_deck

import tunedeck as td
from tunedeck.deck.reading import model_names

LORA = td.LoraConfig(r=4, target_modules="all-linear")


def by_peft(folder: Path, model_type: str, seed: int = 0) -> torch.Tensor:
    """Normalised mean-pooled vectors of TEXTS as peft computes them, one text at a time."""
    base = tiny_models.folder_of(model_type, "plain", seed)
    model = peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(base), str(folder)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
        rows.append(torch.nn.functional.normalize(states[0, -len(tokenizer(text)["input_ids"]) :].mean(dim=0), dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "llama", "gpt2"])
def test_peft_loads_a_lora_of_a_bare_model_with_the_same_vectors(model_type: str, tmp_path: Path) -> None:
    deck = embed_deck(model_type)
    tiny_models.add_stirred(deck, "a", LORA)
    deck.save("a", tmp_path / "a")
    assert tiny_models.difference(by_peft(tmp_path / "a", model_type), deck.embed(TEXTS, "a")) < 1e-5
    assert tiny_models.difference(deck.embed(TEXTS), deck.embed(TEXTS, "a")) > 1e-3


def test_its_keys_have_no_prefix_as_pefts_of_a_bert_model(tmp_path: Path) -> None:
    deck = embed_deck()
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    deck.save("a", tmp_path)
    keys = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight" in keys
    assert {key.split(".")[2] for key in keys} == {"encoder"}
    assert '"FEATURE_EXTRACTION"' in (tmp_path / "adapter_config.json").read_text()


def test_peft_sees_the_same_states_behind_virtual_tokens(tmp_path: Path) -> None:
    deck = embed_deck()
    tiny_models.add_stirred(deck, "soft", CONFIGS["prompt"])
    deck.save("soft", tmp_path / "soft")
    assert tiny_models.difference(by_peft(tmp_path / "soft", "bert"), deck.embed(TEXTS, "soft")) < 1e-5


def test_a_bare_model_reads_what_peft_writes_for_it(tmp_path: Path) -> None:
    base = transformers.AutoModel.from_pretrained(tiny_models.folder_of("bert", "plain"))
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=["query"], r=3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(str(tmp_path))
    deck = embed_deck()
    deck.load_adapter(tmp_path, "a")
    assert tiny_models.difference(by_peft(tmp_path, "bert"), deck.embed(TEXTS, "a")) < 1e-5


def test_a_lora_of_the_model_with_a_head_fits_its_bare_base(tmp_path: Path) -> None:
    causal = tiny_models.deck_of("llama", "causal")
    tiny_models.add_stirred(causal, "a", td.LoraConfig())
    causal.save("a", tmp_path / "a")
    (tmp_path / "a" / "tunedeck.json").unlink()
    deck = td.Deck.load(tiny_models.folder_of("llama", "causal"), td.Embed(normalize=False), dtype="float32")
    deck.load_adapter(tmp_path / "a", "a")
    ids = torch.tensor([deck.tokenizer(TEXTS[0])["input_ids"]])
    logits = tiny_models.logits_of(causal, {"input_ids": ids}, "a")
    with torch.no_grad():
        states = deck(ids, adapter="a").last_hidden_state
        assert tiny_models.difference(causal.model.lm_head(states), logits) < 1e-5


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_kind_is_written_and_read_again_with_the_same_vectors(config: object, tmp_path: Path) -> None:
    deck = embed_deck()
    tiny_models.add_stirred(deck, "a", config)  # type: ignore[arg-type]
    deck.save("a", tmp_path / "a")
    fresh = embed_deck()
    fresh.load_adapter(tmp_path / "a")
    assert torch.equal(fresh.embed(TEXTS, "a"), deck.embed(TEXTS, "a"))


def test_adapterhubs_keys_have_no_prefix_and_both_forms_fit_both_models(tmp_path: Path) -> None:
    bare = embed_deck()
    tiny_models.add_stirred(bare, "t", CONFIGS["bottleneck"])
    bare.save("t", tmp_path / "bare")
    keys = torch.load(tmp_path / "bare" / "pytorch_adapter.bin", weights_only=True).keys()
    assert "encoder.layer.0.output.adapters.t.adapter_down.0.weight" in keys
    assert "encoder.layer.1.attention.output.adapters.t.adapter_up.bias" in keys
    assert not any(key.startswith("bert.") for key in keys)
    headed = tiny_models.deck_of("bert")
    headed.add("t", CONFIGS["bottleneck"], labels=tiny_models.LABELS)
    headed.save("t", tmp_path / "headed")
    (tmp_path / "headed" / "tunedeck.json").unlink()
    for file in ("head_config.json", "pytorch_model_head.bin"):
        (tmp_path / "headed" / file).unlink()
    bare.load_adapter(tmp_path / "headed", "from headed")
    own, theirs = headed.adapter("t").tensors(), bare.adapter("from headed").tensors()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "distilbert", "llama"])
def test_a_base_has_one_fingerprint_with_and_without_a_head(model_type: str) -> None:
    folder = tiny_models.folder_of(model_type, "plain")
    bare = td.Deck.load(folder, td.Embed(), dtype="float32")
    headed = td.Deck.load(folder, td.Classify(labels=tiny_models.LABELS), dtype="float32")
    assert (bare.base.prefix, headed.base.prefix != "") == ("", True)
    assert bare.base.fingerprint == headed.base.fingerprint
    assert model_names(bare.base).prefix == ""
