"""Generation: the loss, packing, training, and decoding that a mixed batch does not change."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from torch.nn import functional as F

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.data.chat import Conversation, Message
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.generate import loss as answer_loss
from tunedeck.tasks.generate.chat_tokens import encode_conversation
from tunedeck.tasks.generate.data import split_by_prompt
from tunedeck.tasks.generate.metrics import answer_metrics, rouge_l
from tunedeck.tasks.generate.packing import output_is_a_product, pack, pack_rows, target_logits
from tunedeck.tasks.generate.task import GenerateObjective

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(target_modules="all-linear"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "prefix": td.PrefixTuningConfig(num_virtual_tokens=4),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "full": td.FullConfig(),
}


@pytest.fixture
def deck() -> td.Deck:
    made = tiny_models.deck_of("llama", "causal")
    made.tokenizer.eos_token = "[SEP]"
    for seed, (name, config) in enumerate(KINDS.items()):
        tiny_models.add_stirred(made, name, config, seed=seed + 1)
    return made


def chats(count: int, seed: int = 0) -> list[Conversation]:
    """The answer repeats the question's first word."""
    chooser = random.Random(seed)
    asked = [" ".join(f"w{chooser.randint(5, 24)}" for _ in range(chooser.randint(2, 7))) for _ in range(count)]
    return [Conversation((Message("user", a), Message("assistant", a.split()[0]))) for a in asked]


def dataset(train: list[Conversation], held_out: list[Conversation]) -> Dataset[Conversation]:
    return Dataset("chats", train, held_out, "0" * 64, "chats")


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_the_cross_entropy_of_the_answers_tokens_alone(deck: td.Deck, name: str) -> None:
    one = chats(1)[0]
    encoded = encode_conversation(deck.tokenizer, one)
    logits = tiny_models.logits_of(deck, {"input_ids": torch.tensor([encoded.ids])}, name)[0]
    after = [place for place, counted in enumerate(encoded.loss_mask) if counted]
    expected = F.cross_entropy(logits[[place - 1 for place in after]], torch.tensor([encoded.ids[p] for p in after]))
    objective = GenerateObjective(deck, name, td.Generate(), dataset([one], [one]))
    with torch.no_grad():
        loss, _ = objective.loss([0])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert objective.weight([0]) == len(after)
    assert objective.evaluate()["loss"] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("name", [None, *KINDS])
def test_packed_conversations_do_not_see_each_other(deck: td.Deck, name: str | None) -> None:
    encoded = [encode_conversation(deck.tokenizer, one) for one in chats(7)]
    rows = pack_rows(encoded, limit=30)
    assert len(rows) < len(encoded)
    packed = pack(deck, name, rows)
    with torch.no_grad():
        together = target_logits(deck, name, packed)
        alone = torch.cat([target_logits(deck, name, pack(deck, name, [[one]])) for row in rows for one in row])
    assert tiny_models.difference(together, alone) < 1e-5


def test_packing_fills_rows_within_the_limit_and_loses_nothing() -> None:
    tokenizer = tiny_models.deck_of("llama", "causal").tokenizer
    tokenizer.eos_token = "[SEP]"
    encoded = [encode_conversation(tokenizer, one) for one in chats(40)]
    rows = pack_rows(encoded, limit=24)
    assert sorted(map(id, (one for row in rows for one in row))) == sorted(map(id, encoded))
    assert all(sum(len(one.ids) for one in row) <= 24 for row in rows)


def test_gradients_are_the_same_packed_and_unpacked(deck: td.Deck) -> None:
    found = chats(6)

    def gradients(packing: bool) -> list[torch.Tensor]:
        objective = GenerateObjective(deck, "lora", td.Generate(max_length=48, packing=packing), dataset(found, found))
        deck.adapter("lora").zero_grad()
        objective.loss(range(len(objective.lengths)))[0].backward()
        return [p.grad.clone() for p in deck.adapter("lora").parameters() if p.grad is not None]

    assert max(map(tiny_models.difference, gradients(True), gradients(False))) < 1e-5


def test_training_teaches_an_answer_and_it_is_decoded() -> None:
    fresh = tiny_models.deck_of("llama", "causal")
    fresh.tokenizer.eos_token = "[SEP]"
    fresh.add("a", td.FullConfig())
    task = fresh.adapter("a").task
    assert isinstance(task, td.Generate)
    settings = td.TrainingSettings(epochs=60, learning_rate=2e-2, batch_size=16)
    fixed = [Conversation((one.messages[0], Message("assistant", "w50 w60"))) for one in chats(64)]
    run = td.train(fresh, "a", dataset(fixed[:56], fixed[56:]), settings=settings, progress=False)
    assert run.metrics["loss"] < 0.1
    assert fresh.generate(["w9 w9 w9"], "a") == ["w50 w60"]


def test_a_mixed_batch_says_token_for_token_what_single_runs_say(deck: td.Deck) -> None:
    prompts = ["w10 w11", "w20 w30 w40 w50 w60", "w7", "w9 w8 w7 w6 w5", "w30 w31 w32", "w44"]
    adapters = ["lora", "prompt", None, "bottleneck", "full", "lora"]
    sampling = td.Sampling(max_tokens=10)
    alone = [deck.generate([p], a, sampling)[0] for p, a in zip(prompts, adapters, strict=True)]
    assert deck.generate(prompts, adapters, sampling) == alone
    assert len(set(alone)) > 3


def test_greedy_decoding_of_the_base_is_transformers_own(deck: td.Deck) -> None:
    ids = torch.tensor([deck.tokenizer("w10 w11 w12\n")["input_ids"]])
    theirs = deck.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    ours = deck.generate(["w10 w11 w12"], None, td.Sampling(max_tokens=12))
    assert ours == [deck.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)]


def test_the_stream_is_the_answer_in_pieces(deck: td.Deck) -> None:
    sampling = td.Sampling(max_tokens=9)
    prompts = ["w10 w11", "w20"]
    pieces = list(deck.stream(prompts, ["lora", None], sampling))
    answers = ["".join(piece.text for piece in pieces if piece.row == row) for row in range(2)]
    assert answers == deck.generate(prompts, ["lora", None], sampling)
    assert [piece.row for piece in pieces if piece.done] in ([0, 1], [1, 0])


def test_sampling_repeats_with_its_seed_and_does_not_depend_on_the_batch(deck: td.Deck) -> None:
    sampling = td.Sampling(max_tokens=12, temperature=1.5, top_p=0.9, top_k=50, seed=3)
    first = deck.generate(["w10 w11"], "prompt", sampling)
    assert deck.generate(["w10 w11", "w30 w40 w50"], ["prompt", "lora"], sampling)[0] == first[0]
    assert deck.generate(["w10 w11"], "prompt", td.Sampling(max_tokens=12, temperature=1.5, seed=4)) != first


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 9e-6])
def test_a_temperature_too_small_to_divide_by_is_greedy(deck: td.Deck, temperature: float) -> None:
    sampling = td.Sampling(max_tokens=8, temperature=temperature, top_p=0.9, top_k=5)
    assert deck.generate(["w10 w11"], "lora", sampling) == deck.generate(["w10 w11"], "lora", td.Sampling(max_tokens=8))


def test_a_stop_string_ends_the_answer_before_it(deck: td.Deck) -> None:
    whole = deck.generate(["w10 w11"], "lora", td.Sampling(max_tokens=10))[0]
    stop = whole.split()[3]
    cut = deck.generate(["w10 w11"], "lora", td.Sampling(max_tokens=10, stop=(stop,)))[0]
    assert cut == whole[: whole.index(stop)]
    streamed = deck.stream(["w10 w11"], "lora", td.Sampling(max_tokens=10, stop=(stop,)))
    assert "".join(piece.text for piece in streamed) == cut


def test_a_repetition_penalty_works_beside_virtual_tokens(deck: td.Deck) -> None:
    plain = deck.generate(["w10 w11"], "prompt", td.Sampling(max_tokens=16))[0].split()
    varied = deck.generate(["w10 w11"], "prompt", td.Sampling(max_tokens=16, repetition_penalty=5.0))[0].split()
    assert len(set(varied)) >= len(set(plain))
    assert len(set(varied)) == len(varied)


@pytest.mark.parametrize("settings", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"stop": ("",)}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        td.Sampling(**settings)


def test_what_cannot_be_generated_is_refused_with_the_reason(deck: td.Deck) -> None:
    with pytest.raises(ConfigError, match="a prompt is a text"):
        deck.generate([""], None)
    with pytest.raises(ConfigError, match="more than the model's 64 positions"):
        deck.generate(["w10 " * 70], None)
    with pytest.raises(ConfigError, match="to generate, load it with"):
        tiny_models.deck_of("bert").generate(["w10"], None)
    long = [Conversation((Message("user", "w10"), Message("assistant", "w20 " * 40)))]
    with pytest.raises(DataError, match="no answer fits"):
        GenerateObjective(deck, "lora", td.Generate(max_length=16), dataset(long, long))
    with pytest.warns(UserWarning, match="1 conversations are left out"):
        GenerateObjective(deck, "lora", td.Generate(max_length=16), dataset([*long, *chats(3)], chats(3)))


def test_no_prompt_stands_on_both_sides_of_a_split() -> None:
    found = [Conversation((Message("user", f"w{n % 10}"), Message("assistant", f"w{n}"))) for n in range(60)]
    train, held_out = split_by_prompt(found, 0.2, seed=0)
    prompts = [{one.messages[0].content for one in side} for side in (train, held_out)]
    assert not prompts[0] & prompts[1]
    assert len(prompts[1]) == 2
    assert len(train) + len(held_out) == 60


def test_answer_metrics_are_those_worked_out_by_hand() -> None:
    # the longest common subsequence of "the cat sat" and "the black cat" is "the cat": 2 * 2 / (3 + 3)
    assert rouge_l("the cat sat", "The black cat") == pytest.approx(2 / 3)
    assert rouge_l("很好吃", "真好吃") == pytest.approx(2 / 3)
    assert rouge_l("", "") == 1
    assert rouge_l("a", "") == 0
    found = answer_metrics(["Yes ", "no"], ["yes", "maybe"])
    assert found["exact_match"] == 0.5
    assert answer_metrics(["same words"], ["same words"])["chrf"] == pytest.approx(1)


@pytest.mark.parametrize("rows_at_once", [1, 3, 1000])
def test_the_loss_without_whole_logits_equals_the_cross_entropy_with_its_gradient(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    torch.manual_seed(0)
    output_layer = torch.nn.Linear(8, 50, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(7, 8), torch.randint(0, 50, (7,))
    monkeypatch.setattr(answer_loss, "CHUNK_BYTES", 4 * 50 * rows_at_once)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    loss = answer_loss.frozen_output_loss(ours, output_layer, targets)
    expected = F.cross_entropy(output_layer(theirs), targets)
    (3 * loss).backward()
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert tiny_models.difference(ours.grad, theirs.grad) < 1e-7
    with torch.no_grad():
        assert answer_loss.frozen_output_loss(hidden, output_layer, targets).item() == pytest.approx(
            expected.item(), abs=1e-6
        )


def test_logits_that_a_model_caps_or_an_adapter_changes_are_not_taken_for_a_product(deck: td.Deck) -> None:
    encoded = [[encode_conversation(deck.tokenizer, one)] for one in chats(2)]
    assert output_is_a_product(deck, "lora", pack(deck, "lora", encoded))
    assert output_is_a_product(deck, None, pack(deck, None, encoded))
    assert not output_is_a_product(deck, "full", pack(deck, "full", encoded))
    deck.add("on-the-head", td.LoraConfig(target_modules=("lm_head",)))
    assert not output_is_a_product(deck, "on-the-head", pack(deck, "on-the-head", encoded))
    capped = tiny_models.deck_of("gemma2", "causal")
    capped.tokenizer.eos_token = "[SEP]"
    encoded = [[encode_conversation(capped.tokenizer, one)] for one in chats(2)]
    assert not output_is_a_product(capped, None, pack(capped, None, encoded))


def test_a_deck_without_a_head_has_no_head_to_train() -> None:
    with pytest.raises(ConfigError, match="only tasks with labels have a head to train alone"):
        tiny_models.deck_of("llama", "causal").add("h", td.FullConfig("head"))


@pytest.mark.parametrize("packing", [False, True])
def test_a_tokenizer_without_an_end_token_teaches_answers_without_one(packing: bool) -> None:
    deck = tiny_models.deck_of("llama", "causal")
    deck.tokenizer = tiny_models.tiny_tokenizer("llama")
    assert deck.tokenizer.eos_token_id is None
    deck.add("a", td.LoraConfig())
    data = dataset(chats(8), chats(4, seed=1))
    settings = td.TrainingSettings(max_steps=2, batch_size=4)
    with pytest.warns(UserWarning, match="the tokenizer has no end token"):
        objective = GenerateObjective(deck, "a", td.Generate(packing=packing), data)
    assert objective.weight(range(len(objective.lengths))) == len(data.train)  # each answer is one word
    with pytest.warns(UserWarning, match="the tokenizer has no end token"):
        assert td.train(deck, "a", data, settings=settings, progress=False).metrics["loss"] > 0
    assert deck.generate(["w10 w11"], "a", td.Sampling(max_tokens=3))


def test_a_model_that_names_neither_padding_nor_an_end_is_padded_by_token_0(tmp_path: Path) -> None:
    tokenizer = tiny_models.tiny_tokenizer("llama")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    tiny_models.tiny_model("llama", "causal", pad_token_id=None).save_pretrained(tmp_path)
    deck = td.Deck.load(str(tmp_path), td.Generate(), dtype="float32")
    assert (deck.tokenizer.pad_token_id, deck.tokenizer.eos_token_id, deck.model.config.pad_token_id) == (None, None, 0)
    alone = deck.generate(["w10 w11 w12"], sampling=td.Sampling(max_tokens=3))
    assert deck.generate(["w20", "w10 w11 w12"], sampling=td.Sampling(max_tokens=3))[1:] == alone
