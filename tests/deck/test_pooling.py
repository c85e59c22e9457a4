"""Heads on pooled states: each row of a batch is read as its own adapter says, whatever the others do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import (
    HIDDEN,
    LABELS,
    VOCAB,
    deck_of,
    difference,
    folder_of,
    logits_of,
    rows_of,
    stir,
    token_batch,
)

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, ConfigError, UnsupportedKindError
from tunedeck.core.pooling import HeadPooling
from tunedeck.deck.pooling import head_input
from tunedeck.deck.task import pooling_of

POOLINGS: tuple[HeadPooling, ...] = ("mean", "first", "last", "model")
FAMILIES = ("bert", "roberta", "distilbert", "llama")


def pooled_deck(model_type: str = "bert") -> td.Deck:
    """A deck with a LoRA for each pooling, a prompt, a bottleneck and a full adapter that read the mean."""
    deck = deck_of(model_type)
    for seed, pooling in enumerate(POOLINGS):
        deck.add(pooling, td.LoraConfig(), task=td.Classify(labels=LABELS[: 2 + seed % 2], pooling=pooling))
        stir(deck, pooling, seed)
    mean = td.Classify(labels=LABELS, pooling="mean")
    for name, config in (
        ("prompt", td.PromptTuningConfig(num_virtual_tokens=3)),
        ("bottleneck", td.BottleneckConfig("seq_bn")),
        ("full", td.FullConfig(1)),
    ):
        deck.add(name, config, task=mean)
        stir(deck, name)
    return deck


def test_a_pooled_head_is_a_linear_on_the_pooled_states_of_the_model() -> None:
    deck, batch = pooled_deck(), token_batch()
    head = deck.adapter("mean").head["linear"]
    merged: Any = deck.merge("mean")
    with torch.no_grad():
        hidden = merged.bert(**batch).last_hidden_state
        wanted = head(head_input(hidden, batch["attention_mask"], "mean"))
    assert head.in_features == HIDDEN
    assert difference(logits_of(deck, batch, "mean"), wanted) < 1e-5


def test_the_model_itself_is_called_as_before() -> None:
    deck, ids = pooled_deck(), token_batch()["input_ids"]
    with torch.no_grad():
        assert torch.equal(deck.model(ids).logits, deck_of("bert").model(ids).logits)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_mixed_batch_equals_its_parts(model_type: str) -> None:
    deck = pooled_deck(model_type)
    names = [None, *deck.adapters, "mean", None]
    batch = token_batch(len(names))
    mixed = logits_of(deck, batch, names)
    for row, name in enumerate(names):
        own = len(deck.label_names(name))
        assert difference(mixed[row, :own], logits_of(deck, rows_of(batch, [row]), name)[0]) < 1e-5, name
        assert torch.isneginf(mixed[row, own:]).all()


@pytest.mark.parametrize("name", ["mean", "first", "last", "prompt", "full"])
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    deck = pooled_deck("llama" if name == "last" else "bert")
    ids = torch.randint(4, VOCAB, (1, 6))
    right = {"input_ids": torch.nn.functional.pad(ids, (0, 3)), "attention_mask": torch.tensor([[1] * 6 + [0] * 3])}
    alone = logits_of(deck, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, name)
    assert difference(logits_of(deck, right, name), alone) < 1e-5


def test_predictions_of_texts_are_the_same_in_a_mixed_batch() -> None:
    deck = pooled_deck()
    texts = ["w10 w20 w30", "w44", "w5 w6 w7 w8 w9"] * 3
    names = ["mean", "model", None, "prompt", "first", "last", "bottleneck", "full", "mean"]
    mixed = deck.predict(texts, adapter=names)
    for text, name, found in zip(texts, names, mixed, strict=True):
        assert found.score == pytest.approx(deck.predict([text], adapter=name)[0].score, abs=1e-5)


@pytest.mark.parametrize("name", ["mean", "first", "last", "prompt", "bottleneck", "full"])
def test_a_saved_adapter_answers_as_before(tmp_path: Path, name: str) -> None:
    deck, batch = pooled_deck(), token_batch()
    deck.save(name, tmp_path / name)
    again = deck_of("bert")
    again.load_adapter(tmp_path / name)
    assert pooling_of(again.adapter(name).task) == pooling_of(deck.adapter(name).task)
    assert torch.equal(logits_of(again, batch, name), logits_of(deck, batch, name))
    assert again.check_probe(name)


def test_peft_loads_the_lora_of_a_pooled_adapter_onto_the_bare_model(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    deck, batch = pooled_deck(), token_batch()
    deck.save("mean", tmp_path / "mean")
    bare = transformers.AutoModel.from_pretrained(folder_of("bert", "classifier"))
    theirs = peft.PeftModel.from_pretrained(bare, tmp_path / "mean").eval()
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
        logits = deck.adapter("mean").head["linear"](head_input(hidden, batch["attention_mask"], "mean"))
    assert difference(logits, logits_of(deck, batch, "mean")) < 1e-5


def test_the_base_says_how_it_is_pooled(tmp_path: Path) -> None:
    def pooling_on(model_type: str, form: str) -> str:
        return pooling_of(td.Deck.load(folder_of(model_type, form), td.Classify(labels=LABELS)).task)

    assert pooling_on("bert", "classifier") == "model"  # head and pooler come with the checkpoint
    assert pooling_on("bert", "plain") == "model"  # its pooler does
    assert pooling_on("llama", "plain") == "model"  # which reads the last token
    assert pooling_on("bert", "unpooled") == "mean"
    assert pooling_on("roberta", "plain") == "mean"  # its head's first layer would be drawn at random


def test_adapters_of_earlier_versions_read_what_the_model_reads(tmp_path: Path) -> None:
    deck = pooled_deck()
    deck.save("model", tmp_path / "old")
    manifest = tmp_path / "old" / "tunedeck.json"
    manifest.write_text(manifest.read_text().replace('"pooling": "model"', '"earlier": true'))
    again = td.Deck(deck_of("bert").base, td.Classify(labels=LABELS, pooling="mean"))
    again.load_adapter(tmp_path / "old")
    assert pooling_of(again.adapter("old").task) == "model"


def test_a_pooled_adapter_on_a_base_without_a_trained_pooler_answers_as_before(tmp_path: Path) -> None:
    deck, batch = (
        td.Deck.load(folder_of("bert", "unpooled"), td.Classify(labels=LABELS), dtype="float32"),
        token_batch(),
    )
    deck.add("mean", td.LoraConfig())
    stir(deck, "mean")
    deck.save("mean", tmp_path / "mean")
    deck.load_adapter(tmp_path / "mean", "again")
    assert torch.equal(logits_of(deck, batch, "again"), logits_of(deck, batch, "mean"))


@pytest.mark.parametrize(
    ("pooling", "reason"),
    [("model", "no module 'linear'"), ("max", "pooling must be one of"), (3, "pooling must be one of")],
)
def test_a_manifest_that_does_not_fit_the_head_is_refused(tmp_path: Path, pooling: object, reason: str) -> None:

    deck = pooled_deck()
    deck.save("mean", tmp_path / "mean")
    manifest = tmp_path / "mean" / "tunedeck.json"
    values = json.loads(manifest.read_text())
    values["task"]["pooling"] = pooling
    manifest.write_text(json.dumps(values))
    with pytest.raises(AdapterFileError, match=reason):
        deck.load_adapter(tmp_path / "mean", "again")


def test_a_pooled_head_without_its_file_is_refused(tmp_path: Path) -> None:
    deck = pooled_deck()
    deck.save("mean", tmp_path / "mean")
    (tmp_path / "mean" / "head.safetensors").unlink()
    with pytest.raises(AdapterFileError, match="the head does not fit this base"):
        deck.load_adapter(tmp_path / "mean", "again")


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="pooling must be one of"):
        td.Classify(labels=LABELS, pooling="max")  # type: ignore[arg-type]


def test_a_transformers_folder_of_a_pooled_adapter_is_refused(tmp_path: Path) -> None:
    from tunedeck.export.merge import save_merged

    with pytest.raises(UnsupportedKindError, match="reads the text by mean pooling, and transformers' Bert"):
        save_merged(pooled_deck(), "mean", tmp_path / "merged")
