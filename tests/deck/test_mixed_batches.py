"""One batch may mix any kinds of adapters with the bare base, and gives each row what a batch of its own would."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mixed_decks import KINDS, full_deck
from support.tiny_models import LABELS, PAD, add_stirred, deck_of, difference, logits_of, rows_of, token_batch

import tunedeck as td

FAMILIES = (("bert", "classifier"), ("llama", "classifier"), ("llama", "causal"))
MIXES = [*combinations(KINDS, 2), ("lora", "seq_bn", "prompt"), ("prefix", "prefix-2", "prompt"), tuple(KINDS)]
LARGEST = 1e-5


def width_of(deck: td.Deck, name: str | None) -> int:
    return len(deck.label_names(name)) if "labels" in deck.task.capabilities else 120


def assert_rows_are_as_alone(deck: td.Deck, batch: dict[str, torch.Tensor], names: list[str | None]) -> None:
    mixed = logits_of(deck, batch, names)
    for row, name in enumerate(names):
        alone, own = logits_of(deck, rows_of(batch, [row]), name)[0], width_of(deck, name)
        assert alone.shape[-1] == own
        assert difference(mixed[row, ..., :own], alone) < LARGEST, name
        assert torch.isneginf(mixed[row, ..., own:]).all()
        assert mixed.shape[-1] == max(width_of(deck, other) for other in names)


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
@pytest.mark.parametrize(("model_type", "form"), FAMILIES)
def test_a_mixed_batch_equals_its_parts(model_type: str, form: str, mix: tuple[str, ...]) -> None:
    deck = full_deck(model_type, form)
    names = [*mix, None, *reversed(mix)]
    assert_rows_are_as_alone(deck, token_batch(len(names)), names)


@pytest.mark.parametrize("form", ["classifier", "causal"])
def test_a_mixed_batch_padded_on_the_left_equals_its_parts(form: str) -> None:
    deck = full_deck("llama", form)
    names = [None, *KINDS, "lora-2", None]
    assert_rows_are_as_alone(deck, token_batch(len(names), pad="left"), names)


@pytest.mark.parametrize(("model_type", "form"), FAMILIES)
@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.sampled_from([None, *KINDS, "lora-2", "lora-3", "prompt-2", "prefix-2"]), min_size=1, max_size=7)
)
def test_any_assignment_of_adapters_to_rows_gives_each_row_its_own(
    model_type: str, form: str, names: list[str | None]
) -> None:
    assert_rows_are_as_alone(full_deck(model_type, form), token_batch(len(names)), names)


@pytest.mark.parametrize(("model_type", "form"), FAMILIES)
def test_a_padded_row_equals_the_same_row_unpadded(model_type: str, form: str) -> None:
    deck = full_deck(model_type, form)
    batch = token_batch(3)
    for name in (None, *KINDS):
        padded = logits_of(deck, batch, name)[2]
        short = int(batch["attention_mask"][2].sum())
        alone = logits_of(deck, {key: tensor[2:3, :short] for key, tensor in batch.items()}, name)[0]
        assert difference(padded[:short] if form == "causal" else padded, alone) < LARGEST, name


def test_a_batch_without_a_mask_counts_every_token() -> None:
    deck, batch = full_deck("bert", "classifier"), token_batch(2, pad=None)
    names = ["prompt", "lora"]
    with torch.no_grad():
        assert torch.equal(deck(batch["input_ids"], adapter=names).logits, logits_of(deck, batch, names))


def test_token_types_follow_their_rows() -> None:
    deck, batch = full_deck("bert", "classifier"), token_batch(4, pad=None)
    batch["token_type_ids"] = torch.tensor([[0] * 9, [1] * 9, [0] * 4 + [1] * 5, [1] * 2 + [0] * 7])
    names = ["prompt", "lora", "prompt", None]
    assert_rows_are_as_alone(deck, batch, names)
    plain = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert difference(logits_of(deck, batch, names)[1:, :2], logits_of(deck, plain, names)[1:, :2]) > 1e-3


@pytest.mark.parametrize("length", [1, 9])
def test_adapters_of_one_kind_keep_to_their_rows_on_a_bfloat16_base(length: int) -> None:
    deck, exact = deck_of("llama", "causal", dtype="bfloat16"), deck_of("llama", "causal")
    names = [None, "lora-1", "lora-2", "lora-3", "seq_bn-1", "seq_bn-2", None]
    for seed, name in enumerate(name for name in names if name is not None):
        for one in (deck, exact):
            add_stirred(one, name, KINDS[name.partition("-")[0]], seed=seed)
    batch = token_batch(len(names), length, pad=None)
    mixed, expected = logits_of(deck, batch, names).float(), logits_of(exact, batch, names)
    assert difference(mixed, expected) < 0.03 * expected.abs().max().item()
    assert difference(mixed, logits_of(exact, batch)) > 0.3 * expected.abs().max().item()


def test_causal_logits_are_for_the_callers_positions() -> None:
    deck, batch = full_deck("llama", "causal"), token_batch(2, pad=None)
    assert logits_of(deck, batch, "prompt").shape == (2, 9, 120)
    assert logits_of(deck, batch, ["prompt", "prompt-2"]).shape == (2, 9, 120)


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_virtual_tokens_from_a_text_act_like_that_text(model_type: str) -> None:
    deck, batch = deck_of(model_type, "causal"), token_batch(2, pad=None)
    deck.add("prompt", td.PromptTuningConfig(3, "TEXT", "w20 w30 w40"))
    written_out = torch.tensor([[20, 30, 40]] * 2)
    longer = {"input_ids": torch.cat([written_out, batch["input_ids"]], dim=1)}
    expected = logits_of(deck, longer)[:, 3:]
    assert difference(logits_of(deck, batch, "prompt"), expected) < LARGEST


def test_a_virtual_row_may_fill_the_models_positions_beside_a_full_bare_row() -> None:
    deck = full_deck("bert", "classifier")
    batch = token_batch(2, 64, pad=None)
    batch["input_ids"][0, 59:], batch["attention_mask"][0, 59:] = PAD, 0
    assert_rows_are_as_alone(deck, batch, ["prompt", None])


def test_more_tokens_than_positions_is_an_error_with_and_without_virtual_ones() -> None:
    deck = full_deck("bert", "classifier")
    for length, name in ((60, "prompt"), (65, None), (65, "lora")):
        with pytest.raises(
            td.TunedeckError, match="65 tokens, virtual ones included, are more than the model's 64 pos"
        ):
            logits_of(deck, token_batch(2, length, pad=None), name)


def test_an_adapter_needs_nothing_from_its_neighbours() -> None:
    deck, batch = deck_of("bert"), token_batch(2)
    add_stirred(deck, "one", KINDS["lora"])
    before = logits_of(deck, batch, "one")
    for name, config in KINDS.items():
        add_stirred(deck, name, config, seed=3)
    assert torch.equal(logits_of(deck, batch, "one"), before)
    for name in KINDS:
        deck.remove(name)
    assert torch.equal(logits_of(deck, batch, "one"), before)
    assert deck.label_names("one") == LABELS
