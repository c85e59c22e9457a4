"""Adapters that find entities as PEFT's folders (TOKEN_CLS) and AdapterHub's (tagging heads), and as merged models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from support import tiny_models
from support.method_examples import examples
from support.tagged_words import TAGS, tag_deck
from support.tiny_models import difference, logits_of, token_batch

import tunedeck as td
from tunedeck.core.errors import UnsupportedKindError
from tunedeck.export.folders import convert_adapter
from tunedeck.export.merge import save_merged
from tunedeck.export.standalone import open_adapter
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import METHODS

ASKED = ["w4 w5, w6!", " w9 \u00e9\U0001f642 w8\u3000w7", "w30", " ".join(f"w{4 + number}" for number in range(90))]
PEFT: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "dora": td.LoraConfig(r=4, use_dora=True),
    "ia3": td.Ia3Config(),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "prefix": td.PrefixTuningConfig(num_virtual_tokens=5, shift_positions=True),
}


def plain_model() -> Any:
    """The tiny base as transformers loads it for TAGS; transformers draws its head at random."""
    return transformers.AutoModelForTokenClassification.from_pretrained(
        tiny_models.folder_of("bert", "unpooled"),
        id2label=dict(enumerate(TAGS)),
        label2id={tag: number for number, tag in enumerate(TAGS)},
        dtype=torch.float32,
    ).eval()


def known_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of the positions that are not padding, (positions, tags); PEFT's come after those of virtual tokens."""
    with torch.no_grad():
        logits: torch.Tensor = model(**batch).logits
    return logits[:, -batch["input_ids"].shape[1] :][batch["attention_mask"].bool()]


def own_logits(deck: td.Deck, batch: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return logits_of(deck, batch, name)[batch["attention_mask"].bool()]


def found_by(deck: td.Deck, name: str) -> list[list[tuple[Any, ...]]]:
    return [
        [(one.label, one.start, one.end, one.text, one.score) for one in answer.entities]
        for answer in deck.predict(ASKED, adapter=name)
    ]


@pytest.mark.parametrize("kind", PEFT)
def test_peft_loads_our_tagger_and_we_load_what_it_saves(kind: str, tmp_path: Path) -> None:
    deck, batch = tag_deck(), token_batch()
    tiny_models.add_stirred(deck, "ours", PEFT[kind])
    deck.save("ours", tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("TOKEN_CLS", ["classifier"])
    plain = plain_model()
    if kind == "prefix":
        del plain.config.num_key_value_heads  # ours for all tiny models; PEFT reads it where nothing else does
    theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path / "ours")).eval()
    assert isinstance(theirs, peft.PeftModelForTokenClassification)
    assert difference(known_logits(theirs, batch), own_logits(deck, batch, "ours")) < 1e-5
    theirs.save_pretrained(str(tmp_path / "theirs"))
    assert open_adapter(tmp_path / "theirs", tiny_models.folder_of("bert", "unpooled")).task.kind == "tag"
    deck.load_adapter(tmp_path / "theirs")
    assert deck.label_names("theirs") == TAGS
    assert difference(own_logits(deck, batch, "theirs"), own_logits(deck, batch, "ours")) < 1e-6


def tagging_head(folder: Path, **changes: Any) -> None:
    """Turn our static head of an AdapterHub folder into the tagging head of adapters/heads/base.py that equals it."""
    config = json.loads((folder / "head_config.json").read_text())
    labels = {"label2id": config.pop("label2id"), "num_labels": config.pop("num_labels")}
    flex = {"head_type": "tagging", "layers": 1, "activation_function": "tanh", "dropout_prob": None, **labels}
    for file in ("adapter_config.json", "head_config.json"):
        values = json.loads((folder / file).read_text()) | {"model_class": "BertAdapterModel"}
        values |= {"config": flex | changes, "name": "t"} if file == "head_config.json" else {}
        (folder / file).write_text(json.dumps(values))
    weights = folder / "pytorch_model_head.bin"
    tensors = torch.load(weights, weights_only=True)
    torch.save({key.replace("classifier", "heads.t.1"): tensor for key, tensor in tensors.items()}, weights)
    (folder / "tunedeck.json").unlink()


def test_adapterhubs_tagging_head_is_read_and_ours_is_the_static_head_that_equals_it(tmp_path: Path) -> None:
    deck, batch = tag_deck(), token_batch()
    tiny_models.add_stirred(deck, "t", td.BottleneckConfig("seq_bn"))
    deck.save("t", tmp_path / "t")
    head = json.loads((tmp_path / "t" / "head_config.json").read_text())
    assert (head["model_class"], head["config"], head["num_labels"]) == ("BertForTokenClassification", None, 5)
    assert head["label2id"] == {tag: number for number, tag in enumerate(TAGS)}
    tagging_head(tmp_path / "t")
    assert open_adapter(tmp_path / "t", tiny_models.folder_of("bert", "unpooled")).task.kind == "tag"
    fresh = tag_deck()
    fresh.load_adapter(tmp_path / "t")
    assert fresh.label_names("t") == TAGS
    assert torch.equal(own_logits(fresh, batch, "t"), own_logits(deck, batch, "t"))
    assert found_by(fresh, "t") == found_by(deck, "t")


def test_a_lora_tagger_goes_to_adapterhub_and_back(tmp_path: Path) -> None:
    deck = tag_deck()
    tiny_models.add_stirred(deck, "a", td.LoraConfig(r=4))
    deck.save("a", tmp_path / "a")
    convert_adapter(tmp_path / "a", tmp_path / "hub", "adapterhub")
    convert_adapter(tmp_path / "hub", tmp_path / "back", "peft")
    for name in ("hub", "back"):
        deck.load_adapter(tmp_path / name)
        assert found_by(deck, name) == found_by(deck, "a")


def test_heads_that_no_class_of_transformers_has_are_refused_by_name(tmp_path: Path) -> None:
    deck = tag_deck()
    tiny_models.add_stirred(deck, "t", td.BottleneckConfig("seq_bn"))
    for name, changes in (("deep", {"layers": 2}), ("other", {})):
        deck.save("t", tmp_path / name)
        tagging_head(tmp_path / name, **changes)
    with pytest.raises(UnsupportedKindError, match=r"AdapterHub head is not supported: .*'layers': 2"):
        deck.load_adapter(tmp_path / "deep")
    with pytest.raises(UnsupportedKindError, match=r"AdapterHub head is not supported: .*tagging"):
        tiny_models.deck_of("bert").load_adapter(tmp_path / "other")


@pytest.mark.parametrize("kind", METHODS)
def test_a_tagger_of_every_method_answers_the_same_once_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    """Long texts and virtual tokens included: the offsets are those of the text."""
    deck = tag_deck(max_length=24)
    for number, config in enumerate([*examples(kind, "bert", "classifier").values()][::4]):
        name = f"{kind}-{number}"
        tiny_models.add_stirred(deck, name, config)
        before = found_by(deck, name)
        assert any(before)
        assert all(
            text[start:end] == found for text, row in zip(ASKED, before, strict=True) for _, start, end, found, _ in row
        )
        deck.save(name, tmp_path / name)
        deck.remove(name)
        deck.load_adapter(tmp_path / name)
        assert found_by(deck, name) == before


def test_a_merged_tagger_answers_in_transformers_pipeline(tmp_path: Path) -> None:
    deck = tag_deck()
    tiny_models.add_stirred(deck, "a", td.LoraConfig(r=4, target_modules="all-linear"))
    save_merged(deck, "a", tmp_path / "merged")
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "merged")
    assert model.config.id2label == dict(enumerate(TAGS))
    found = transformers.pipeline("token-classification", str(tmp_path / "merged"), aggregation_strategy="none")
    text = "w4 w5 w6 w9 w30"
    each = {one["start"]: one["entity"] for one in found(text)}
    (answer,) = deck.predict([text], adapter="a")
    ours = {at: one.label for one in answer.entities for at in range(one.start, one.end) if at in each}
    assert {at: tag[2:] for at, tag in each.items() if tag != "O"} == ours
