"""Every kind works on each architecture and in bfloat16, by the site table alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import mixed_decks
from support.tiny_models import LABELS, add_stirred, deck_of, difference, folder_of, logits_of, rows_of, token_batch

import tunedeck as td
from tunedeck.core.model_spec import ModelSpec
from tunedeck.methods.base import MethodConfig

KINDS: dict[str, MethodConfig] = {**mixed_decks.KINDS, "full-all": td.FullConfig()}
CLASSIFIERS = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "modernbert"),
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "glm", "glm4"),
)
CAUSAL = ("llama", "qwen3", "gemma3_text", "gpt2")
MODELS = [*((name, "classifier") for name in CLASSIFIERS), *((name, "causal") for name in CAUSAL)]
every_model = pytest.mark.parametrize(("model_type", "form"), MODELS)


def kinds_of(model_type: str) -> dict[str, MethodConfig]:
    """Every kind that the architecture can carry: keys and values come before a cache, which two have none of."""
    cached = model_type not in ("distilbert", "modernbert")
    return {name: config for name, config in KINDS.items() if cached or config.kind != "prefix_tuning"}


def four_labels(form: str) -> tuple[str, ...] | None:
    return ("n", "e", "s", "w") if form == "classifier" else None


@every_model
def test_every_kind_works_alone_and_beside_the_others(model_type: str, form: str) -> None:
    kinds = kinds_of(model_type)
    deck, batch = deck_of(model_type, form), token_batch(len(kinds) + 1)
    for seed, (name, config) in enumerate(kinds.items()):
        add_stirred(deck, name, config, seed=seed)
    bare = logits_of(deck, batch)
    names = [*kinds, None]
    mixed = logits_of(deck, batch, names)
    for row, adapter in enumerate(names):
        assert difference(mixed[[row]], logits_of(deck, rows_of(batch, [row]), adapter)) < 1e-5, adapter
        assert adapter is None or difference(mixed[row], bare[row]) > 1e-3, adapter


@every_model
@pytest.mark.parametrize("name", ["lora", "full", "full-all"])
def test_merging_keeps_the_output(model_type: str, form: str, name: str) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    add_stirred(deck, "done", KINDS[name], labels=four_labels(form))
    with torch.no_grad():
        assert difference(deck.merge("done")(**batch).logits, logits_of(deck, batch, "done")) < 2e-5


@pytest.mark.parametrize(
    ("model_type", "form", "name"), [(*model, name) for model in MODELS for name in kinds_of(model[0])]
)
def test_a_written_adapter_reads_back_on_every_architecture(
    model_type: str, form: str, name: str, tmp_path: Path
) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    add_stirred(deck, "written", KINDS[name], labels=four_labels(form))
    deck.save("written", tmp_path / "adapter")
    fresh = deck_of(model_type, form)
    fresh.load_adapter(tmp_path / "adapter", name="read")
    assert torch.equal(logits_of(fresh, batch, "read"), logits_of(deck, batch, "written"))


@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("llama", "classifier"), ("llama", "causal")])
def test_every_kind_works_on_a_bfloat16_base_and_stays_float32_itself(model_type: str, form: str) -> None:
    deck, exact = deck_of(model_type, form, dtype="bfloat16"), deck_of(model_type, form)
    assert {parameter.dtype for parameter in deck.model.parameters()} == {torch.bfloat16}
    batch = token_batch(len(KINDS) + 1)
    for seed, (name, config) in enumerate(KINDS.items()):
        add_stirred(deck, name, config, seed=seed)
        add_stirred(exact, name, config, seed=seed)
        assert {parameter.dtype for parameter in deck.adapter(name).parameters()} == {torch.float32}
    names = [*KINDS, None]
    mixed, alone = logits_of(deck, batch, names).float(), logits_of(exact, batch, names)
    assert difference(mixed, alone) < 0.03 * alone.abs().max().item() + 0.05
    if form == "classifier":  # an adapter's own head answers in float32
        assert logits_of(deck, batch, "lora").dtype == torch.float32


@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("llama", "classifier"), ("llama", "causal")])
@pytest.mark.parametrize("name", ["lora", "full"])
def test_merging_into_a_bfloat16_base_keeps_its_precision_and_the_output(model_type: str, form: str, name: str) -> None:
    deck, batch = deck_of(model_type, form, dtype="bfloat16"), token_batch()
    add_stirred(deck, "done", KINDS[name])
    merged = deck.merge("done")
    kept, made = dict(deck.model.named_buffers()), dict(merged.named_buffers())
    assert {key: buffer.dtype for key, buffer in made.items()} == {key: buffer.dtype for key, buffer in kept.items()}
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        rounding = (merged(**batch).logits.float() - logits_of(deck, batch, "done").float()).abs().mean()
    assert rounding < 0.03


def test_merging_a_fully_trained_base_keeps_the_head_that_was_trained() -> None:
    deck = td.Deck.load(folder_of("bert", "unpooled"), td.Classify(labels=LABELS), dtype="float32")
    batch = token_batch()
    add_stirred(deck, "done", td.FullConfig())
    with torch.no_grad():
        assert difference(deck.merge("done")(**batch).logits, logits_of(deck, batch, "done")) < 1e-5


def test_every_tensor_of_a_fully_trained_base_without_a_pooler_learns() -> None:
    task = td.Classify(labels=LABELS, pooling="model")
    deck = td.Deck.load(folder_of("bert", "unpooled"), task, dtype="float32")
    add_stirred(deck, "new", td.FullConfig())
    deck(**token_batch(), adapter="new").logits.square().sum().backward()
    idle = [name for name, p in deck.adapter("new").named_parameters() if p.grad is None]
    assert idle == []
    spec = ModelSpec.from_config(deck.model.config.to_dict())
    expected = spec.base_parameters + spec.head_parameters(len(LABELS))
    assert deck.summary("new").trainable_parameters == expected


def test_a_merged_model_saves_and_loads_as_a_plain_transformers_model(tmp_path: Path) -> None:
    deck, batch = deck_of("bert"), token_batch()
    add_stirred(deck, "done", KINDS["lora"], labels=("x", "y"))
    merged: Any = deck.merge("done")
    merged.save_pretrained(tmp_path)
    again = td.Deck.load(str(tmp_path), td.Classify(), dtype="float32")
    assert again.label_names(None) == ("x", "y")
    assert difference(logits_of(again, batch), logits_of(deck, batch, "done")) < 1e-5
