"""Token classification: windows, training with every method, mixed batches, spans of the original text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.tagged_words import TAGS, tag_deck, texts, write_jsonl
from torch.nn import functional as F

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError, ModelError
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import config_of
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.tag.encoding import encode_texts, word_logits
from tunedeck.tasks.tag.reading import Span, TaggedText
from tunedeck.tasks.tag.task import UNLEARNT, TagObjective, entities_of, learnt_windows
from tunedeck.training.trainer import AdapterTrainer

METHODS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "full": td.FullConfig(1),
    "head": config_of("full", {"layers": "head"}),
}
LONG_ENOUGH = td.TrainingSettings(epochs=10, batch_size=8, learning_rate=3e-3, early_stopping_patience=0)
LONG = " ".join(f"w{10 + number % 100}" for number in range(200))


def dataset(count: int = 60, held_out: int = 20) -> Dataset[TaggedText]:
    found = texts(count + held_out)
    return Dataset("made up", found[:count], found[count:], "", "", TAGS)


def stirred(deck: td.Deck) -> list[str]:
    """An adapter of every method, with tags of their own in number."""
    for seed, (name, config) in enumerate(METHODS.items(), start=1):
        deck.add(name, config, labels=TAGS if seed % 2 else TAGS[:3])
        tiny_models.stir(deck, name, seed)
    return list(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_to_find_entities(method: str) -> None:
    deck = tag_deck()
    deck.add("a", METHODS[method])
    run = td.train(deck, "a", dataset(), settings=LONG_ENOUGH, progress=False)
    assert run.metrics["f1"] > 0.75
    assert run.metrics.keys() == {"f1", "precision", "recall", "loss"}
    examples = dataset().train
    answers = deck.predict([one.text for one in examples], adapter="a")
    right = [
        [(one.start, one.end, one.label) for one in answer.entities] == list(example.spans)
        for example, answer in zip(examples, answers, strict=True)
    ]
    assert sum(right) > 0.6 * len(right)
    entities = [(one, example) for example, answer in zip(examples, answers, strict=True) for one in answer.entities]
    assert all(example.text[one.start : one.end] == one.text and 0 < one.score <= 1 for one, example in entities)


def test_a_decoder_is_tagged_as_well() -> None:
    deck = tag_deck("llama", "plain")
    deck.add("a", METHODS["lora"])
    run = td.train(deck, "a", dataset(), settings=LONG_ENOUGH, progress=False)
    assert run.metrics["f1"] > run.start["f1"] + 0.3


def test_a_mixed_batch_equals_its_parts() -> None:
    deck = tag_deck()
    names: list[str | None] = [*stirred(deck)]
    asked = ["w4 w5 w6", "w9 w8 w7 w6 w5", "w30", "w11 w12 w13", "w90 w4 w4"]
    encoded = encode_texts(deck, asked, names, 64)
    for one, name, mixed in zip(encoded, names, word_logits(deck, encoded, names), strict=True):
        (alone,) = word_logits(deck, [one], [name])
        assert alone.shape == mixed.shape == (len(one.words), len(deck.label_names(name)))
        assert torch.allclose(alone, mixed, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_every_word_of_a_long_text_has_a_tag_of_its_own_window(method: str) -> None:
    deck = tag_deck(max_length=32)
    deck.add("a", METHODS[method])
    tiny_models.stir(deck, "a")
    (one,) = encode_texts(deck, [LONG], ["a"], 32)
    room = 30 - deck.virtual_tokens("a")
    assert len(one.words) == 200
    assert all(len(row) <= room + 2 for row in one.rows)
    (logits,) = word_logits(deck, [one], ["a"])
    for row, window in enumerate(one.windows):
        words = LONG.split()[window.start : window.end]
        (alone,) = word_logits(deck, encode_texts(deck, [" ".join(words)], ["a"], 64), ["a"])
        numbers, positions = one.decided(row)
        assert torch.allclose(logits[numbers], alone[[at - one.front for at in positions]], atol=1e-5)


def test_long_texts_are_trained_on_to_their_end() -> None:
    deck = tag_deck(max_length=16)
    deck.add("a", METHODS["lora"])
    span = Span(LONG.rindex("w109"), len(LONG), "room")
    _, targets, _ = learnt_windows(deck, "a", deck.task, [TaggedText(LONG, (span,))])  # type: ignore[arg-type]
    learnt = [one[one != UNLEARNT] for one in targets]
    assert sum(map(len, learnt)) == 200
    assert learnt[-1][-1] == TAGS.index("B-room")


def test_the_loss_is_the_mean_over_first_tokens_of_words() -> None:
    deck = tag_deck()
    deck.add("a", METHODS["lora"])
    tiny_models.stir(deck, "a")
    objective = TagObjective(deck, "a", deck.task, dataset())  # type: ignore[arg-type]
    rows = [0, 7, 3]
    loss, positions = objective.loss(rows)
    assert positions % len(rows) == 0
    every, wanted = [], []
    for row in rows:
        ids, targets = torch.tensor([objective._ids[row]]), objective._targets[row]
        every.append(deck(ids, adapter="a").logits[0][targets != UNLEARNT])
        wanted.append(targets[targets != UNLEARNT])
    assert loss.item() == pytest.approx(F.cross_entropy(torch.cat(every), torch.cat(wanted)).item(), rel=1e-5)
    assert objective.weight(rows) == len(torch.cat(wanted))


def test_adapters_trained_in_one_pass_have_the_losses_of_their_own() -> None:
    deck = tag_deck()
    names = stirred(deck)
    found = dataset()
    objectives = [
        TagObjective(deck, name, deck.adapter(name).task, found)  # type: ignore[arg-type]
        for name in names
        if deck.label_names(name) == TAGS and not deck.adapter(name).built.weights
    ]
    assert len(objectives) >= 2
    parts = [(objective, [number, number + 5]) for number, objective in enumerate(objectives)]
    for (objective, rows), (loss, _) in zip(parts, TagObjective.losses(parts), strict=True):
        assert loss.item() == pytest.approx(objective.loss(rows)[0].item(), rel=1e-5)


def test_entities_inside_a_word_are_learnt_with_its_borders_and_counted_aloud() -> None:
    deck = tag_deck()
    deck.add("a", METHODS["lora"])
    inside = TaggedText("w50 w13", (Span(5, 7, "room"),))
    _, (targets,), uneven = learnt_windows(deck, "a", deck.task, [inside])  # type: ignore[arg-type]
    assert targets.tolist() == [UNLEARNT, 0, TAGS.index("B-room"), UNLEARNT]
    assert uneven == 1
    with pytest.warns(UserWarning, match="1 of 1 entities begin or end inside a word"):
        TagObjective(deck, "a", deck.task, Dataset("", [inside], [inside], "", ""))  # type: ignore[arg-type]


def test_a_text_without_words_has_no_entities() -> None:
    deck = tag_deck()
    deck.add("a", METHODS["lora"])
    empty, blank, some = deck.predict(["", " \n ", "w4"], adapter="a")
    assert empty.entities == blank.entities == ()
    assert isinstance(some.entities, tuple)


def test_the_score_of_an_entity_is_the_mean_probability_of_its_tags() -> None:
    chances = torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])
    words = [(0, 0, 2), (1, 3, 5), (2, 6, 8)]
    (entity,) = entities_of("a b c d ", [*map(_word, words)], chances.log(), ("O", "B-P", "I-P")).entities
    assert (entity.start, entity.end, entity.score) == (0, 5, pytest.approx(0.7))


def _support(examples: list[TaggedText], wrong: Span) -> list[tuple[str, int]]:
    spans = [wrong, *examples[0].spans[1:], *(span for one in examples[1:] for span in one.spans)]
    counts = {label: sum(span.label == label for span in spans) for label in ("device", "room")}
    return sorted(counts.items())


def _word(values: tuple[int, int, int]) -> Any:
    from tunedeck.core.tagging import Word

    return Word(*values)


def test_what_leaves_no_room_for_text_is_refused() -> None:
    deck = tag_deck(max_length=7)
    deck.add("a", METHODS["prompt"])
    with pytest.raises(ConfigError, match="max_length leaves no room"):
        deck.predict(["w4"], adapter="a")
    with pytest.raises(ConfigError, match="max_length must be 3 or more, got 2"):
        td.Tag(max_length=2)
    with pytest.raises(ConfigError, match="subwords must be one of first, all"):
        td.Tag(subwords="last")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="named twice"):
        td.Tag(labels=("O", "O"))


def test_a_base_without_a_tokenizer_is_refused() -> None:
    deck = tag_deck()
    deck.add("a", METHODS["lora"])
    deck.tokenizer = None
    with pytest.raises(ModelError, match="has no tokenizer files"):
        deck.predict(["w4"], adapter="a")


def test_evaluation_counts_by_entity_and_by_error(tmp_path: Path) -> None:
    deck = tag_deck()
    deck.add("a", METHODS["head"])
    td.train(deck, "a", dataset(), settings=td.TrainingSettings(epochs=1), progress=False)
    examples = texts(10, seed=5)
    wrong = examples[0].spans[0]._replace(label="device")
    file = write_jsonl(
        tmp_path / "test.jsonl", [TaggedText(examples[0].text, (wrong, *examples[0].spans[1:])), *examples[1:]]
    )
    found = td.evaluate(deck, str(file))
    assert [(label.label, label.support) for label in found.breakdowns["a"].labels] == _support(examples, wrong)
    errors = [found.metrics["a"][kind] for kind in ("missed", "invented", "wrong_border", "wrong_label")]
    assert sum(errors) >= 1 or examples[0].spans[0].label == "device"
    assert found.description == "10 texts with 20 entities"
    unknown = write_jsonl(tmp_path / "other.jsonl", [TaggedText("w4 w5", (Span(0, 2, "planet"),))])
    with pytest.raises(DataError, match="unknown label 'planet'"):
        td.evaluate(deck, str(unknown))


def test_a_deck_says_that_an_untrained_base_finds_nothing_of_its_own() -> None:
    with pytest.warns(UserWarning, match="no trained classification head"):
        tag_deck().predict(["w4"])


def test_a_run_that_broke_off_is_resumed_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = td.TrainingSettings(max_steps=6, batch_size=8, checkpoint_every=2)

    def run(folder: Path, *, resume: bool = False) -> td.TrainingRun:
        deck = tag_deck()
        deck.add("a", METHODS["lora"])
        return td.train(deck, "a", dataset(), settings=settings, out=folder, resume=resume, progress=False)

    whole = run(tmp_path / "whole")
    step = AdapterTrainer.optimizer_step

    def break_off(trainer: AdapterTrainer, seconds: float) -> None:
        step(trainer, seconds)
        if trainer.state.steps == 4:
            raise RuntimeError("broken off")

    monkeypatch.setattr(AdapterTrainer, "optimizer_step", break_off)
    with pytest.raises(RuntimeError, match="broken off"):
        run(tmp_path / "cut")
    monkeypatch.setattr(AdapterTrainer, "optimizer_step", step)
    assert run(tmp_path / "cut", resume=True).metrics == whole.metrics
