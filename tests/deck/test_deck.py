"""Adding, removing, naming and asking: what the deck promises a person who uses it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import (
    LABELS,
    POSITIONS,
    WORDS,
    add_stirred,
    deck_of,
    difference,
    folder_of,
    hook_count,
    logits_of,
    token_batch,
)

import tunedeck as td
from tunedeck.core.errors import AdapterError, ConfigError, TargetError, UnknownAdapterError

TEXTS = ["w10 w20 w30", "w40", "w50 w60 w70 w80 w90", "w11 w12 w13 w14"]
LONG = " ".join(WORDS)
TWO_LABELS = ("yes", "no")


def stocked_deck(model_type: str = "bert") -> td.Deck:
    deck = deck_of(model_type)
    add_stirred(deck, "law", td.LoraConfig(target_modules="all-linear"), seed=1)
    add_stirred(deck, "tone", td.BottleneckConfig("double_seq_bn"), labels=TWO_LABELS, seed=2)
    add_stirred(deck, "topic", td.PromptTuningConfig(num_virtual_tokens=5), labels=("a", "b", "c", "d"), seed=3)
    return deck


def test_the_adapters_are_listed_in_the_order_they_came() -> None:
    deck = stocked_deck()
    assert deck.adapters == ("law", "tone", "topic")
    deck.remove("tone")
    assert deck.adapters == ("law", "topic")


def test_an_unknown_adapter_is_named_with_those_that_are_loaded() -> None:
    deck = stocked_deck()
    text = (
        r"adapter 'laws' is not loaded \(loaded: law, tone, topic\) \(did you mean 'law'\?\); "
        r"load it with deck.load_adapter\(folder, name='laws'\)"
    )
    for act in (
        lambda: deck.predict(["w10"], adapter="laws"),
        lambda: deck.predict(["w10", "w11"], adapter=["law", "laws"]),
        lambda: deck(**token_batch(2), adapter="laws"),
        lambda: deck.remove("laws"),
        lambda: deck.summary("laws"),
        lambda: deck.merge("laws"),
        lambda: deck.save("laws", "nowhere"),
    ):
        with pytest.raises(UnknownAdapterError, match=text):
            act()
    with pytest.raises(UnknownAdapterError, match=r"'x' is not loaded \(loaded: none\); load"):
        deck_of("bert").predict(["w10"], adapter="x")


def test_a_name_is_taken_once_and_may_be_used_again_after_removal(tmp_path: Path) -> None:
    deck = stocked_deck()
    deck.save("law", tmp_path / "law")
    taken = "an adapter 'law' is loaded already; remove it first or choose another name"
    with pytest.raises(AdapterError, match=taken):
        deck.add("law", td.LoraConfig())
    with pytest.raises(AdapterError, match=taken):
        deck.load_adapter(tmp_path / "law")
    with pytest.raises(AdapterError, match="an adapter needs a name"):
        deck.add("", td.LoraConfig())
    deck.remove("law")
    assert deck.load_adapter(tmp_path / "law") == "law"


def test_a_failed_add_leaves_the_deck_as_it_was() -> None:
    deck = deck_of("bert")
    with pytest.raises(TargetError):
        deck.add("law", td.LoraConfig(target_modules=("q_proj",)))
    with pytest.raises(TargetError):
        deck.add("law", td.BottleneckConfig(leave_out=(7,)))
    with pytest.raises(TargetError):
        deck.add("law", td.FullConfig(5))
    assert deck.adapters == ()
    assert hook_count(deck.model) == 0


def test_the_same_seed_draws_the_same_adapter_and_touches_no_other_random_state() -> None:
    deck = deck_of("bert")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        deck.add(name, td.BottleneckConfig(), labels=TWO_LABELS, seed=seed)
    assert torch.equal(torch.rand(3), expected)
    one, same, other = (deck.adapter(name).tensors() for name in ("one", "same", "other"))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["0.ffn.down.weight"], other["0.ffn.down.weight"])


def test_an_adapter_has_the_decks_labels_or_its_own() -> None:
    deck = stocked_deck()
    assert deck.label_names("law") == LABELS
    assert deck.label_names("tone") == TWO_LABELS
    assert deck.adapter("topic").labels == ("a", "b", "c", "d")
    assert deck.label_names(None) == ("LABEL_0", "LABEL_1", "LABEL_2")  # the checkpoint's own head


def test_a_prediction_is_over_the_labels_of_its_rows_adapter() -> None:
    deck = stocked_deck()
    names = ["law", "tone", "topic", None]
    answers = deck.predict(TEXTS, adapter=names)
    for answer, name in zip(answers, names, strict=True):
        assert isinstance(answer, td.Prediction)
        assert tuple(answer.probabilities) == deck.label_names(name)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.score == max(answer.probabilities.values()) == answer.probabilities[answer.label]
        assert answer.labels == (answer.label,)


def test_each_row_is_answered_as_if_it_were_alone_and_in_the_callers_order() -> None:
    deck = stocked_deck()
    texts = [*TEXTS * 12, LONG]  # more than one batch, sorted by length inside
    names = [("law", None, "topic", "tone", "topic")[row % 5] for row in range(len(texts))]
    for text, name, answer in zip(texts, names, deck.predict(texts, adapter=names), strict=True):
        alone = deck.predict([text], adapter=name)[0]
        assert answer.label == alone.label
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("virtual_tokens", [5, 8])
def test_texts_longer_than_the_model_are_cut_to_what_the_virtual_tokens_leave(
    model_type: str, virtual_tokens: int
) -> None:
    deck = deck_of(model_type)
    add_stirred(deck, "prompt", td.PromptTuningConfig(num_virtual_tokens=virtual_tokens))
    positions = (
        POSITIONS - 1 if model_type == "roberta" else POSITIONS
    )  # RoBERTa's table begins after the padding index
    assert deck.positions == positions
    answers = deck.predict([LONG, "w10", LONG], adapter=["prompt", "prompt", None])
    cut = deck.tokenizer(LONG, truncation=True, max_length=positions - virtual_tokens, return_tensors="pt")
    logits = logits_of(deck, {"input_ids": cut["input_ids"]}, "prompt")[0]
    assert list(answers[0].probabilities.values()) == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
    assert answers[2].probabilities == pytest.approx(deck.predict([LONG])[0].probabilities, abs=1e-5)


def test_max_length_counts_special_and_virtual_tokens() -> None:
    deck = td.Deck.load(folder_of("bert", "classifier"), td.Classify(labels=LABELS, max_length=10), dtype="float32")
    add_stirred(deck, "prompt", td.PromptTuningConfig(num_virtual_tokens=5))
    assert deck.predict(["w10 w20 w30 w40"], adapter="prompt") == deck.predict(["w10 w20 w30"], adapter="prompt")
    assert deck.predict(["w10 w20 w30"], adapter="prompt") != deck.predict(["w10 w20"], adapter="prompt")


def test_virtual_tokens_that_leave_no_room_for_text_are_an_error() -> None:
    deck = deck_of("bert")
    deck.add("prompt", td.PromptTuningConfig(num_virtual_tokens=POSITIONS))
    with pytest.raises(ConfigError, match="leaves no room for text besides the virtual and the special tokens"):
        deck.predict(["w10"], adapter="prompt")


def test_several_labels_may_be_true_of_one_text() -> None:
    deck = td.Deck.load(folder_of("bert", "classifier"), td.Classify(labels=LABELS, multi_label=True), dtype="float32")
    add_stirred(deck, "tags", td.LoraConfig(), seed=4)
    for answer in deck.predict(TEXTS, adapter="tags"):
        assert set(answer.labels) == {label for label, chance in answer.probabilities.items() if chance > 0.5}
        assert tuple(answer.probabilities) == LABELS
    logits = logits_of(deck, {"input_ids": torch.tensor([[1, 40, 2]])}, "tags")[0]
    answer = deck.predict(["w40"], adapter="tags")[0]
    assert list(answer.probabilities.values()) == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)


def test_an_adapter_for_several_labels_stays_one_on_a_deck_for_single_labels(tmp_path: Path) -> None:
    many = td.Deck.load(folder_of("bert", "classifier"), td.Classify(labels=LABELS, multi_label=True), dtype="float32")
    add_stirred(many, "tags", td.LoraConfig(), seed=4)
    many.save("tags", tmp_path / "tags")
    deck = deck_of("bert")
    deck.load_adapter(tmp_path / "tags")
    add_stirred(deck, "topic", td.LoraConfig(), seed=5)
    mixed = deck.predict(["w40", "w40"], adapter=["tags", "topic"])
    assert mixed[0].probabilities == pytest.approx(many.predict(["w40"], adapter="tags")[0].probabilities, abs=1e-5)
    assert sum(mixed[1].probabilities.values()) == pytest.approx(1)


def test_a_bare_base_without_a_trained_head_warns_that_its_answers_are_random() -> None:
    deck = td.Deck.load(folder_of("bert", "plain"), td.Classify(labels=TWO_LABELS), dtype="float32")
    with pytest.warns(
        UserWarning, match="has no trained classification head, so predictions without an adapter are random"
    ):
        answer = deck.predict(["w10"])[0]
    assert tuple(answer.probabilities) == TWO_LABELS
    deck.add("law", td.LoraConfig())
    deck.predict(["w10"], adapter="law")  # no warning: warnings of tunedeck are errors in these tests


def test_a_base_loads_the_same_way_every_time() -> None:
    decks = []
    for seed in range(2):
        torch.manual_seed(seed)
        decks.append(td.Deck.load(folder_of("bert", "unpooled"), td.Classify(labels=LABELS), dtype="float32"))
    assert torch.equal(logits_of(decks[0], token_batch()), logits_of(decks[1], token_batch()))


def test_an_adapter_without_labels_says_so_when_asked() -> None:
    deck = td.Deck.load(folder_of("bert", "plain"), td.Classify(), dtype="float32")
    deck.add("new", td.LoraConfig())
    with pytest.raises(AdapterError, match="adapter 'new' has no labels yet; train it, or give it some with"):
        deck.predict(["w10"], adapter="new")
    deck.set_labels("new", ("x", "y"))
    assert tuple(deck.predict(["w10"], adapter="new")[0].probabilities) == ("x", "y")
    with pytest.raises(AdapterError, match="adapter 'new' has its labels already: x, y"):
        deck.set_labels("new", ("x", "z"))


@pytest.mark.parametrize(
    ("texts", "adapter", "message"),
    [
        (["w10", "w11"], ["law"], "1 adapter names for 2 rows; give one, or one per row"),
        ([], "law", "the batch is empty"),
        ("w10", "law", "texts must be a list of texts, not one text"),
    ],
)
def test_a_batch_that_does_not_fit_is_an_error(texts: list[str], adapter: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stocked_deck().predict(texts, adapter=adapter)


@pytest.mark.parametrize(("labels", "message"), [(("a", "a"), "named twice"), (("a",), "needs two labels or more")])
def test_labels_must_tell_apart(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        td.Classify(labels=labels)
    with pytest.raises(ConfigError, match=message):
        deck_of("bert").add("law", td.LoraConfig(), labels=labels)


def test_a_language_model_answers_with_text() -> None:
    deck = deck_of("llama", "causal")
    deck.tokenizer.eos_token = "[SEP]"
    assert deck.predict(["w10"]) == deck.generate(["w10"])


def test_a_summary_counts_sites_and_tensors() -> None:
    deck = stocked_deck()
    summary = deck.summary("law")
    assert (summary.name, summary.kind, len(summary.sites)) == ("law", "lora", 12)
    # per layer, r 8: query, key, value and attention output 4 x 8 x (32 + 32), two feed-forward 2 x 8 x (32 + 64)
    assert summary.method_parameters == 2 * 8 * (4 * 64 + 2 * 96)
    assert summary.head_parameters == 3 * 32 + 3
    assert summary.trainable_share == summary.trainable_parameters / sum(p.numel() for p in deck.model.parameters())
    assert deck.summary("topic").sites == ("prompt",)


def test_threads_that_ask_at_once_get_their_own_answers() -> None:
    deck = stocked_deck()
    names = ["law", "tone", "topic", None]
    expected = {name: deck.predict(TEXTS, adapter=name) for name in names}

    def ask(number: int) -> bool:
        name = names[number % 4]
        answers = deck.predict(TEXTS, adapter=name)
        return all(
            answer.probabilities == pytest.approx(known.probabilities, abs=1e-6)
            for answer, known in zip(answers, expected[name], strict=True)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))


def test_an_adapter_that_comes_and_goes_is_used_whole_or_reported_never_dropped(tmp_path: Path) -> None:
    deck, stop, wrong = stocked_deck(), threading.Event(), []
    deck.save("law", tmp_path / "law")
    batch = token_batch(3)
    law = logits_of(deck, batch, "law")
    assert difference(law, logits_of(deck, batch)) > 1e-3

    def ask() -> None:
        while not stop.is_set():
            try:
                if difference(logits_of(deck, batch, "law"), law) > 1e-5:
                    wrong.append("an answer that is not the adapter's")
            except UnknownAdapterError:
                continue
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        deck.remove("law")
        deck.load_adapter(tmp_path / "law")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_adapter_frozen_for_inference_answers_as_before_and_its_small_tensors_share_their_memory() -> None:
    deck = stocked_deck()
    names = ["law", "tone", "topic"]
    before = logits_of(deck, token_batch(3), names)
    for name in names:
        deck.freeze_for_inference(name)
    assert torch.equal(logits_of(deck, token_batch(3), names), before)
    for name in names:
        parameters: list[torch.nn.Parameter] = []
        for placement in deck.adapter(name).placements().values():
            layer = placement.layer
            parameters += layer.parameters() if isinstance(layer, torch.nn.Module) else (layer.lora_A, layer.lora_B)
        assert len({parameter.untyped_storage().data_ptr() for parameter in parameters}) == 1
        assert not any(parameter.requires_grad for parameter in parameters)
