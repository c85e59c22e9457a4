"""Adapters that PEFT and AdapterHub wrote give the logits that PEFT and AdapterHub computed (golden/README.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.golden_adapters import CASES, GOLDEN, golden_deck
from support.tiny_models import difference, logits_of

HEADS = [case for case in CASES if case.endswith("-head")]
WITHOUT_HEADS = [case for case in CASES if case not in HEADS]
TOLERANCE = 1e-4


def expected(case: str) -> dict[str, Any]:
    return json.loads((GOLDEN / case / "expected.json").read_text())


def batch_of(case: str) -> dict[str, torch.Tensor]:
    known = expected(case)
    return {name: torch.tensor(known[name]) for name in ("input_ids", "attention_mask")}


def test_all_golden_cases_are_there() -> None:
    assert len(WITHOUT_HEADS) == 24
    assert len(HEADS) == 5


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_of_another_library_gives_that_librarys_logits(case: str) -> None:
    deck, batch = golden_deck(case), batch_of(case)
    name = deck.load_adapter(GOLDEN / case / "adapter")
    theirs = torch.tensor(expected(case)["logits"])
    if theirs.dim() == 3:  # PEFT's logits begin with the virtual positions
        theirs = theirs[:, -batch["input_ids"].shape[1] :]
    assert difference(logits_of(deck, batch, name), theirs) < TOLERANCE


@pytest.mark.parametrize("case", WITHOUT_HEADS)
def test_the_base_beside_the_adapter_gives_its_own_logits(case: str) -> None:
    deck, batch = golden_deck(case), batch_of(case)
    deck.load_adapter(GOLDEN / case / "adapter", name="theirs")
    base, ours = torch.tensor(expected(case)["base_logits"]), logits_of(deck, batch, None)
    assert difference(ours, base) < TOLERANCE
    assert difference(logits_of(deck, batch, "theirs"), base) > 100 * TOLERANCE


@pytest.mark.parametrize("case", HEADS)
def test_a_head_of_adapterhub_brings_its_labels(case: str) -> None:
    deck = golden_deck(case)
    deck.load_adapter(GOLDEN / case / "adapter", name="theirs")
    labels = ("a", "b", "c", "d") if "flex" in case else ("LABEL_0", "LABEL_1", "LABEL_2")
    assert deck.label_names("theirs") == labels
    assert deck.summary("theirs").head_parameters > 0


@pytest.mark.parametrize("case", HEADS)
def test_rows_with_a_golden_head_and_bare_rows_share_a_batch(case: str) -> None:
    deck, batch = golden_deck(case), batch_of(case)
    deck.load_adapter(GOLDEN / case / "adapter", name="theirs")
    mixed = logits_of(deck, batch, ["theirs", None, "theirs"])
    theirs = torch.tensor(expected(case)["logits"])
    assert difference(mixed[[0, 2]], theirs[[0, 2]]) < TOLERANCE
    assert mixed.shape[1] == max(theirs.shape[1], 3)
    assert difference(mixed[1, :3], logits_of(deck, batch, None)[1]) < 1e-5
