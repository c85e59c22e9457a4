"""Saved adapters opened on the base that they name, and evaluated there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, BaseMismatchError, ConfigError, DataError, UnknownAdapterError

TEXTS = ("w1 w2 w3", "w4 w5")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two adapters of one base: `a`, and one in the `adapter` folder of a run called `b`."""
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    tiny_models.add_stirred(deck, "b", td.BottleneckConfig())
    places = [tmp_path / "a", tmp_path / "b" / "adapter"]
    for name, place in zip("ab", places, strict=True):
        deck.save(name, place)
    return places


def test_adapters_are_opened_on_the_base_they_name_and_called_after_their_folders(folders: list[Path]) -> None:
    deck = td.Deck.open(*folders, dtype="float32")
    assert deck.adapters == ("a", "b")
    assert deck.base.reference == tiny_models.folder_of("bert", "classifier")
    before = tiny_models.deck_of("bert")
    for name, place in zip("ab", folders, strict=True):
        before.load_adapter(place, name)
        assert deck.predict(TEXTS, adapter=name) == before.predict(TEXTS, adapter=name)


def test_a_second_adapter_of_the_same_name_gets_a_number(folders: list[Path]) -> None:
    assert td.Deck.open(folders[0], folders[0], dtype="float32").adapters == ("a", "a-2")


def test_an_adapter_of_another_base_is_opened_where_that_is_allowed(folders: list[Path]) -> None:
    other = tiny_models.folder_of("bert", "classifier", seed=1)
    with pytest.raises(BaseMismatchError, match="allow_base_mismatch=True"):
        td.Deck.open(folders[0], model=other)
    assert td.Deck.open(folders[0], model=other, allow_base_mismatch=True).adapters == ("a",)


def test_the_earlier_name_of_allow_base_mismatch_still_works_with_a_note(folders: list[Path]) -> None:
    deck = td.Deck.load(tiny_models.folder_of("bert", "classifier", seed=1), td.Classify(labels=("no", "yes")))
    with pytest.warns(UserWarning, match="any_base is called allow_base_mismatch now"):
        assert deck.load_adapter(folders[0], any_base=True) == "a"


def test_no_folder_and_a_folder_that_is_not_an_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no adapter folder to open"):
        td.Deck.open()
    with pytest.raises(AdapterFileError, match="there is no adapter folder"):
        td.Deck.open(tmp_path / "none")


def test_adapters_are_evaluated_on_the_same_examples(folders: list[Path], tmp_path: Path) -> None:
    deck = td.Deck.open(*folders, dtype="float32")
    data = tmp_path / "test.csv"
    answers = [answer.label for answer in deck.predict(TEXTS, adapter="a")]
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, answers, strict=True)))
    found = td.evaluate(deck, str(data))
    assert list(found.metrics) == ["a", "b"]
    assert found.metrics["a"]["accuracy"] == 1.0
    assert td.evaluate(deck, {"train": str(data)}, adapters=["b"]).metrics == {"b": found.metrics["b"]}
    with pytest.raises(DataError, match="known: LABEL_0"):  # the base model has a head with labels of its own
        td.evaluate(deck, str(data), include_base=True)
    with pytest.raises(UnknownAdapterError, match="adapter 'c' is not loaded"):
        td.evaluate(deck, str(data), adapters=["c"])
    with pytest.raises(ConfigError, match=r"unknown key 'data.txt' \(did you mean 'text'\?\)"):
        td.evaluate(deck, {"train": str(data), "txt": "text"})
