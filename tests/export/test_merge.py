"""A merged folder answers as the adapter does, by transformers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from support import embedding_decks, tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterError, ModelError, StorageError, UnsupportedKindError
from tunedeck.export import merge
from tunedeck.export.merge import save_merged
from tunedeck.export.probe import compare, probe_batches
from tunedeck.methods.base import MethodConfig

KINDS: dict[str, MethodConfig] = {"lora": td.LoraConfig(target_modules="all-linear"), "full": td.FullConfig(1)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_transformers_alone_gives_the_adapters_logits_and_labels(model_type: str, kind: str, tmp_path: Path) -> None:
    deck = tiny_models.deck_of(model_type)
    tiny_models.add_stirred(deck, "a", KINDS[kind], labels=("yes", "no"))
    found = save_merged(deck, "a", tmp_path / "merged")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    batch = tiny_models.token_batch()
    with torch.no_grad():
        assert tiny_models.difference(model(**batch).logits, tiny_models.logits_of(deck, batch, "a")) < 1e-5
    assert model.config.id2label == {0: "yes", 1: "no"}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")("w10 w11").input_ids[1:3] == [10, 11]
    assert found.max_abs < 1e-5
    assert found.same == 1.0


def test_a_chat_model_keeps_how_it_generates(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("llama", "causal")
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    deck.model.generation_config.eos_token_id = [2, 77]
    save_merged(deck, "a", tmp_path / "merged")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.generation_config.eos_token_id == [2, 77]
    batch = tiny_models.token_batch(pad=None)
    with torch.no_grad():
        assert tiny_models.difference(model(**batch).logits, tiny_models.logits_of(deck, batch, "a")) < 1e-4


def test_an_embedding_base_is_merged_too(tmp_path: Path) -> None:
    deck = embedding_decks.embed_deck()
    tiny_models.add_stirred(deck, "a", embedding_decks.CONFIGS["lora"])
    save_merged(deck, "a", tmp_path / "merged")
    again = td.Deck.load(str(tmp_path / "merged"), td.Embed(), dtype="float32")
    assert tiny_models.difference(again.embed(embedding_decks.TEXTS), deck.embed(embedding_decks.TEXTS, "a")) < 1e-5


def test_the_decks_precision_is_kept(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert", dtype="bfloat16")
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    assert save_merged(deck, "a", tmp_path / "merged").max_abs > 0
    again = td.Deck.load(str(tmp_path / "merged"), td.Classify(), dtype="checkpoint")
    assert again.base.dtype == torch.bfloat16
    assert (
        td.Deck.load(tiny_models.folder_of("bert", "classifier"), td.Classify(), dtype="checkpoint").base.dtype
        == torch.float32
    )


def test_a_packed_base_is_unpacked_on_request_alone(tmp_path: Path) -> None:
    deck = td.Deck.load(
        tiny_models.folder_of("bert", "classifier"), td.Classify(tiny_models.LABELS), dtype="float32", quantize="int8"
    )
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    with pytest.raises(AdapterError, match="--dequantize"):
        save_merged(deck, "a", tmp_path / "merged")
    with pytest.warns(UserWarning, match="they keep the rounding of int8"):
        found = save_merged(deck, "a", tmp_path / "merged", dequantize=True)
    assert found.max_abs < 1e-4


@pytest.mark.parametrize("kind", [td.BottleneckConfig("seq_bn"), td.PromptTuningConfig(3)])
def test_kinds_that_cannot_merge_are_refused_with_what_to_use(kind: object, tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", kind)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedKindError, match=r"cannot be merged.*train lora or full.*tunedeck export onnx"):
        save_merged(deck, "a", tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    monkeypatch.setattr(merge, "merged", lambda *_, **__: deck.model)
    with pytest.raises(AdapterError, match=r"does not answer as the adapter .* nothing was written"):
        save_merged(deck, "a", tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_place_that_holds_something_and_a_base_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig())
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(StorageError, match="is not empty"):
        save_merged(deck, "a", tmp_path)
    deck = td.Deck(replace(deck.base, tokenizer=None), deck.task)
    deck.add("a", td.LoraConfig())
    with pytest.raises(ModelError, match="has no tokenizer"):
        save_merged(deck, "a", tmp_path / "merged")


def test_probes_vary_in_size_and_stay_inside_the_models_positions() -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("p", td.PromptTuningConfig(7))
    batches = probe_batches(deck, "p")
    assert len({len(ids) for ids, _ in batches}) > 2
    assert max(ids.shape[1] for ids, _ in batches) == tiny_models.POSITIONS - 7
    assert all(
        (ids[mask.bool()] != tiny_models.PAD).all() and (ids[~mask.bool()] == tiny_models.PAD).all()
        for ids, mask in batches
    )
    assert all(mask.any(dim=1).all() for _, mask in batches)


def test_a_difference_is_the_largest_and_counts_equal_choices_outside_the_padding() -> None:
    mask = torch.tensor([[1, 1, 0]])
    left = torch.tensor([[[1.0, 2.0], [4.0, 3.0], [9.0, 0.0]]])
    right = torch.tensor([[[1.0, 2.5], [3.0, 4.0], [0.0, 9.0]]])
    found = compare([left], [right], [mask])
    assert (found.max_abs, found.scale, found.same, found.answers) == (1.0, 4.0, 0.5, 2)
    with pytest.raises(AdapterError, match=r"differ by 1 where 0\.4 is allowed"):
        found.check(0.1, "it")
    with pytest.raises(AdapterError):
        compare([left], [left * float("nan")], [mask]).check(1e9, "it")


def test_a_merged_model_answers_in_the_unit_of_the_scores(tmp_path: Path) -> None:
    task = td.Score(("a", "b"), pooling="model", target_means=(3.0, -40.0), target_stds=(2.0, 9.0))
    deck = td.Deck.load(tiny_models.folder_of("bert", "classifier"), task, dtype="float32", device="cpu")
    deck.add("a", KINDS["lora"])
    tiny_models.stir(deck, "a")
    save_merged(deck, "a", tmp_path / "merged")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        scores = model(**tokenizer(["w4 w5 w6"], return_tensors="pt")).logits[0].tolist()
    (answer,) = deck.predict(["w4 w5 w6"], adapter="a")
    assert list(answer.scores.values()) == pytest.approx(scores, abs=1e-3)
    assert model.config.problem_type == "regression"


def test_scores_of_a_head_without_a_bias_are_refused(tmp_path: Path) -> None:
    task = td.Score(("a",), pooling="model", target_means=(3.0,), target_stds=(2.0,))
    deck = td.Deck.load(tiny_models.folder_of("llama", "classifier"), task, dtype="float32", device="cpu")
    deck.add("a", KINDS["lora"])
    with pytest.raises(UnsupportedKindError, match="no bias to hold their mean"):
        save_merged(deck, "a", tmp_path / "merged")
