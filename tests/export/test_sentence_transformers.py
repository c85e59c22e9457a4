"""What is written for sentence-transformers, read by sentence-transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.embedding_decks import CONFIGS, TEXTS, embed_deck

import tunedeck as td
from tunedeck.core.errors import AdapterError, StorageError, UnsupportedKindError
from tunedeck.export.sentence_transformers import save_sentence_transformers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sentence_transformers = pytest.importorskip("sentence_transformers")


def loaded(folder: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_sentence_transformers_makes_the_same_vectors(kind: str, pooling: str, tmp_path: Path) -> None:
    deck = embed_deck(pooling=pooling)
    tiny_models.add_stirred(deck, "a", CONFIGS[kind])
    save_sentence_transformers(deck, "a", tmp_path / "st")
    model = loaded(tmp_path / "st")
    assert tiny_models.difference(torch.tensor(model.encode(TEXTS)), deck.embed(TEXTS, "a")) < 1e-5
    assert tiny_models.difference(deck.embed(TEXTS), deck.embed(TEXTS, "a")) > 1e-3


def test_a_decoder_too_and_without_normalising(tmp_path: Path) -> None:
    deck = embed_deck("llama", pooling="last", normalize=False)
    tiny_models.add_stirred(deck, "a", CONFIGS["lora"])
    save_sentence_transformers(deck, "a", tmp_path / "st")
    assert tiny_models.difference(torch.tensor(loaded(tmp_path / "st").encode(TEXTS)), deck.embed(TEXTS, "a")) < 1e-5


@pytest.mark.parametrize("instructions", [("w40 w41 ", ""), ("w40 ", "w42 "), ("", "w42 ")])
def test_instructions_and_the_longest_text_go_with_it(instructions: tuple[str, str], tmp_path: Path) -> None:
    query, document = instructions
    deck = embed_deck(query_instruction=query, document_instruction=document, max_length=6)
    tiny_models.add_stirred(deck, "a", CONFIGS["lora"])
    save_sentence_transformers(deck, "a", tmp_path / "st")
    model = loaded(tmp_path / "st")
    assert model.max_seq_length == 6
    for made, as_query in ((model.encode_query(TEXTS), True), (model.encode_document(TEXTS), False)):
        assert tiny_models.difference(torch.tensor(made), deck.embed(TEXTS, "a", as_query=as_query)) < 1e-5
    assert tiny_models.difference(torch.tensor(model.encode(TEXTS)), deck.embed(TEXTS, "a")) < 1e-5


def test_what_was_written_is_a_base_that_knows_its_own_settings(tmp_path: Path) -> None:
    deck = embed_deck(pooling="first", normalize=False, query_instruction="w40 ")
    tiny_models.add_stirred(deck, "a", CONFIGS["lora"])
    save_sentence_transformers(deck, "a", tmp_path / "st")
    again = td.Deck.load(str(tmp_path / "st"), td.Embed(), dtype="float32")
    assert tiny_models.difference(again.embed(TEXTS, as_query=True), deck.embed(TEXTS, "a", as_query=True)) < 1e-5


@pytest.mark.parametrize("kind", ["bottleneck", "prompt"])
def test_kinds_that_cannot_merge_are_refused_with_a_way_on_and_leave_nothing(kind: str, tmp_path: Path) -> None:
    deck = embed_deck()
    deck.add("a", CONFIGS[kind])
    with pytest.raises(UnsupportedKindError, match="train lora or full, or make the vectors here"):
        save_sentence_transformers(deck, "a", tmp_path / "st")
    assert not (tmp_path / "st").exists()


def test_a_folder_that_holds_something_and_an_adapter_of_another_task_are_refused(tmp_path: Path) -> None:
    deck = embed_deck()
    deck.add("a", CONFIGS["lora"])
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(StorageError, match="is not empty"):
        save_sentence_transformers(deck, "a", tmp_path)
    classifier = tiny_models.deck_of("bert")
    classifier.add("c", td.LoraConfig())
    with pytest.raises(AdapterError, match="loads adapters for embeddings only"):
        save_sentence_transformers(classifier, "c", tmp_path / "st")
