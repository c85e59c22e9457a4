from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

import tunedeck as td
from tunedeck.data.labelled import Example
from tunedeck.training.language import language_note

ENGLISH = "the crew was wonderful and we will fly with them again"
CHINESE = "质量很差，用了两天就坏了，客服也不理人"


def deck_with(words: str, task: Any = None) -> Any:
    """A deck as far as the note reads it, its tokenizer made of these words."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *dict.fromkeys(words.split())])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return SimpleNamespace(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"),
        base=SimpleNamespace(reference="a base"),
        task=task or td.Classify(),
    )


def examples(text: str, count: int = 30) -> list[Example]:
    """The words of a text, or its characters where it has no spaces, in other orders."""
    between = " " if " " in text else ""
    words = text.split() if between else list(text)
    orders = [[*words[turn % max(1, len(words)) :], *words[: turn % max(1, len(words))]] for turn in range(count)]
    return [Example(between.join(order), ("good",)) for order in orders]


def test_of_a_base_that_knows_the_words_nothing_is_said() -> None:
    assert language_note(deck_with(ENGLISH), examples(ENGLISH)) is None
    assert language_note(deck_with(" ".join(CHINESE)), examples(CHINESE)) is None


def test_unknown_tokens_are_told_with_a_base_that_would_do_better() -> None:
    note = language_note(deck_with(ENGLISH), examples(CHINESE))
    assert note is not None
    assert "100% of their tokens are unknown" in note
    assert "bundled:multilingual-e5-small" in note


def test_words_in_single_letters_are_told_too() -> None:
    letters = " ".join([*"thecrwasondfuliygm", *(f"##{letter}" for letter in "thecrwasondfuliygm")])
    note = language_note(deck_with(letters), examples(ENGLISH))
    assert note is not None
    assert "0% of their tokens are unknown" in note


@pytest.mark.parametrize("text", ["12 345 678 90", ""])
def test_numbers_and_nothing_are_of_no_language(text: str) -> None:
    assert language_note(deck_with(ENGLISH), examples(text)) is None


def test_a_chat_model_is_told_of_another_chat_model() -> None:
    turns = [[("question", one.text), ("answer", one.text)] for one in examples(CHINESE)]
    note = language_note(deck_with(ENGLISH, td.Generate()), turns)
    assert note is not None
    assert "Qwen" in note


@pytest.mark.parametrize("texts", [["good", "bad"], ["质量很差", "很好"], [ENGLISH]])
def test_a_few_texts_repeated_tell_too_little(texts: list[str]) -> None:
    assert language_note(deck_with("x"), [Example(text, ("good",)) for text in texts] * 100) is None
