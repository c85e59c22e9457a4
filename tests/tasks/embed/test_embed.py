"""Embeddings: pooling, mixed batches, instructions, contrastive training and its cached form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import embedding_decks, tiny_models
from support.embedding_decks import CONFIGS, TEXTS, embed_deck, gradients
from torch.nn import functional as F

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.data.labelled import Example
from tunedeck.data.pairs import Pair, ScoredPair
from tunedeck.deck.forward import Inputs
from tunedeck.deck.pooling import pool
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.embed.task import evaluate_embedding


def dataset(train: list[Any], evaluation: list[Any], metric_for_best_model: str | None = None) -> Dataset[Any]:
    return Dataset("made", train, evaluation, "0", "made", metric_for_best_model=metric_for_best_model)


def test_pooling_gives_the_numbers_worked_out_by_hand_on_both_sides_of_padding() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [9.0]], [[9.0], [1.0], [2.0], [6.0]]])
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    assert pool(hidden, mask, "mean").flatten().tolist() == [3.0, 3.0]
    assert pool(hidden, mask, "first").flatten().tolist() == [1.0, 1.0]
    assert pool(hidden, mask, "last").flatten().tolist() == [6.0, 6.0]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "llama", "gpt2"])
def test_the_bare_base_gives_the_models_own_pooled_states(model_type: str) -> None:
    deck = embed_deck(model_type, normalize=False)
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([deck.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            states = deck.model(ids).last_hidden_state
        assert tiny_models.difference(deck.embed(TEXTS)[[row]], states.mean(dim=1)) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_a_mixed_batch_of_every_kind_equals_its_parts(pooling: str) -> None:
    deck = embed_deck(pooling=pooling)
    for name, config in CONFIGS.items():
        tiny_models.add_stirred(deck, name, config)
    names = [*CONFIGS, None, *reversed(CONFIGS)]
    texts = [TEXTS[row % len(TEXTS)] for row in range(len(names))]
    mixed = deck.embed(texts, names)
    assert mixed.dtype == torch.float32
    for row, adapter in enumerate(names):
        assert tiny_models.difference(mixed[[row]], deck.embed([texts[row]], adapter)) < 1e-5
    assert torch.allclose(mixed.norm(dim=1), torch.ones(len(names)))
    assert all((mixed[row] - mixed[len(CONFIGS)]).abs().max() > 1e-4 for row in range(len(CONFIGS)))


def test_hidden_states_are_the_callers_positions_without_virtual_ones() -> None:
    deck = embed_deck()
    tiny_models.add_stirred(deck, "soft", CONFIGS["prompt"])
    batch = tiny_models.token_batch(3, 9)
    with torch.no_grad():
        states = deck(**batch, adapter=["soft", None, "soft"]).last_hidden_state
        virtual = torch.arange(tiny_models.VOCAB, tiny_models.VOCAB + 3).expand(3, 3)
        wide = Inputs(
            torch.cat([virtual, batch["input_ids"]], 1),
            torch.cat([torch.ones(3, 3).long(), batch["attention_mask"]], 1),
            None,
        )
        whole = deck.call(["soft"] * 3, wide.named()).last_hidden_state
    assert states.shape == (3, 9, tiny_models.HIDDEN)
    assert tiny_models.difference(states[[0]], whole[[0], 3:]) < 1e-6
    kept = batch["attention_mask"][2].bool()
    assert tiny_models.difference(states[2][kept], whole[2, 3:][kept]) < 1e-5


def test_an_instruction_stands_before_queries_alone() -> None:
    deck = embed_deck(query_instruction="w40 w41 ")
    assert torch.equal(deck.embed(["w10"], as_query=True), deck.embed(["w40 w41 w10"]))
    assert tiny_models.difference(deck.embed(["w10"], as_query=True), deck.embed(["w10"])) > 1e-3


def test_each_row_is_made_as_its_own_adapter_was_trained(tmp_path: Path) -> None:
    trained = embed_deck(pooling="first", normalize=False, query_instruction="w40 ", max_length=6)
    tiny_models.add_stirred(trained, "a", CONFIGS["lora"])
    trained.save("a", tmp_path / "a")
    deck = embed_deck()
    deck.load_adapter(tmp_path / "a")
    assert (
        tiny_models.difference(deck.embed(TEXTS, "a", as_query=True), trained.embed(TEXTS, "a", as_query=True)) < 1e-6
    )
    mixed = deck.embed([TEXTS[2]] * 2, ["a", None])
    assert tiny_models.difference(mixed[[0]], trained.embed([TEXTS[2]], "a")) < 1e-5
    assert mixed[1].norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("form", ["pairs", "triplets", "labels"])
def test_cached_chunks_give_the_gradients_of_one_large_batch(config: Any, form: str) -> None:
    found = embedding_decks.pairs(24)
    forms: dict[str, list[Any]] = {
        "pairs": found,
        "triplets": [replace(pair, negative=found[n - 3].positive) for n, pair in enumerate(found)],
        "labels": [Example(pair.anchor, (pair.anchor.split()[0],)) for pair in found],
    }
    examples = forms[form]
    measured = {}
    for chunk_size in (None, 5):
        deck = embed_deck(chunk_size=chunk_size, symmetric=True)
        tiny_models.add_stirred(deck, "a", config)
        task = deck.task
        assert isinstance(task, td.Embed)
        loss, positions = task.objective(deck, "a", dataset(examples, examples)).loss(range(24))
        loss.backward()
        measured[chunk_size] = loss.item(), gradients(deck, "a"), positions
    (whole, expected, _), (cached, got, positions) = measured[None], measured[5]
    assert cached == pytest.approx(whole, abs=1e-5)
    assert got.keys() == expected.keys()
    assert max(g.abs().max() for g in expected.values()) > 1e-3
    for key, gradient in expected.items():
        assert tiny_models.difference(got[key], gradient) <= 1e-5 * max(1.0, gradient.abs().max().item())
    assert positions <= measured[None][2]


def test_cached_chunks_repeat_their_dropout() -> None:
    found = embedding_decks.pairs(8)

    def gradient(chunk_size: int) -> dict[str, torch.Tensor]:
        deck = embed_deck(chunk_size=chunk_size)
        tiny_models.add_stirred(deck, "a", td.LoraConfig(lora_dropout=0.5))
        deck.adapter("a").train()
        objective = deck.task.objective(deck, "a", dataset(found, found))  # type: ignore[attr-defined]
        torch.manual_seed(3)
        loss, _ = objective.loss(range(8))
        again = torch.rand(())  # what is drawn between must not matter
        loss.backward()
        assert again >= 0
        return gradients(deck, "a")

    left, right = gradient(4), gradient(4)
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    ("config", "rate"),
    [
        (td.LoraConfig(target_modules="all-linear"), 5e-3),
        (td.BottleneckConfig("double_seq_bn", reduction_factor=2), 2e-2),
        (td.PromptTuningConfig(num_virtual_tokens=8), 1.0),
        (td.FullConfig(1), 3e-3),
    ],
    ids=["lora", "bottleneck", "prompt", "full"],
)
def test_every_method_learns_to_find_what_belongs_together(config: Any, rate: float) -> None:
    deck = embed_deck(temperature=0.1)
    deck.add("a", config)
    data = dataset(embedding_decks.pairs(160), embedding_decks.pairs(40, seed=9))
    before = evaluate_embedding(deck, None, data.evaluation)
    settings = td.TrainingSettings(epochs=6, learning_rate=rate, batch_size=20)
    run = td.train(deck, "a", data, settings=settings, progress=False)
    assert run.metrics["ndcg@10"] > before["ndcg@10"] + 0.08
    assert run.metrics["loss"] < before["loss"]
    assert set(run.metrics) == {"recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "loss"}
    assert evaluate_embedding(deck, "a", data.evaluation) == pytest.approx(run.metrics)


def test_labelled_texts_learn_and_scored_pairs_tell_the_best_state() -> None:
    texts = [Example(pair.anchor, (pair.anchor.split()[0],)) for pair in embedding_decks.pairs(120)]
    scored = [
        ScoredPair("w10 w70", "w10 w80", 5),
        ScoredPair("w11 w70", "w12 w70", 1),
        ScoredPair("w13 w99", "w13 w61", 4),
    ]
    deck = embed_deck()
    deck.add("a", CONFIGS["lora"])
    settings = td.TrainingSettings(epochs=2, learning_rate=5e-3, batch_size=30)
    run = td.train(deck, "a", dataset(texts, scored, "spearman"), settings=settings, progress=False)
    assert run.metrics.keys() == {"spearman", "pearson"}
    found = evaluate_embedding(deck, "a", texts[:40])
    assert found.keys() == {"precision@1", "precision@5", "precision@10", "mrr", "ndcg@10", "loss"}
    assert found["ndcg@10"] > evaluate_embedding(deck, None, texts[:40])["ndcg@10"] + 0.1


def test_a_text_alone_with_its_label_in_a_batch_is_joined_by_another() -> None:
    examples = [Example(f"w{10 + n // 2} w{60 + n}", (str(n // 2),)) for n in range(20)]
    deck = embed_deck()
    deck.add("a", CONFIGS["lora"])
    loss, _ = deck.task.objective(deck, "a", dataset(examples, examples)).loss([0, 2, 4])  # type: ignore[attr-defined]
    assert loss.item() > 0


def test_a_held_out_anchor_is_looked_for_among_all_positives_of_the_split() -> None:
    deck = embed_deck()
    found = evaluate_embedding(deck, None, [Pair("w10 w11", "w10 w11 w12"), Pair("w50", "w50 w51")])
    vectors = deck.embed(["w10 w11", "w50", "w10 w11 w12", "w50 w51"])
    right = [(vectors[n] @ vectors[2 + n] > vectors[n] @ vectors[3 - n]).item() for n in (0, 1)]
    assert found["recall@1"] == sum(right) / 2
    scores = vectors[:2] @ vectors[2:].T / 0.05
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, torch.arange(2)).item(), abs=1e-5)


def test_nothing_to_find_is_an_error() -> None:
    with pytest.raises(DataError, match="no held-out text has another that belongs to it"):
        evaluate_embedding(embed_deck(), None, [Example("w10", ("a",)), Example("w11", ("b",))])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"pooling": "max"}, "pooling must be one of mean, first, last, got 'max'"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"chunk_size": 0}, "chunk_size must be 1 or more, got 0"),
        ({"max_length": 2}, "max_length must be 3 or more, got 2"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        td.Embed(**settings)


def test_other_tasks_make_no_vectors_and_this_one_no_predictions() -> None:
    with pytest.raises(ConfigError, match=r"load it with td\.Embed\(\)"):
        tiny_models.deck_of("bert").embed(["w10"])
    with pytest.raises(ConfigError, match=r"vectors come from deck\.embed"):
        embed_deck().predict(["w10"])
