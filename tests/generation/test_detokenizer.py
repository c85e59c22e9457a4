"""Text that is decoded token by token is the text of the whole answer, whatever the tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tokenizers_of_all_kinds import tokenizer_of

from tunedeck.generation.detokenizer import UNFINISHED, WINDOW, Detokenizer


def pieces_of(tokenizer: Any, ids: list[int], stops: tuple[str, ...] = ()) -> list[str]:
    """What each token makes certain, and what was left at the end, up to a stop string."""
    detokenizer, pieces = Detokenizer(tokenizer, stops), []
    for token in ids:
        piece, stopped = detokenizer.take(token)
        pieces.append(piece)
        if stopped:
            return pieces
    return [*pieces, detokenizer.rest()[0]]


@pytest.mark.parametrize("kind", ["words", "bytes", "word pieces", "sentence pieces"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_pieces_are_the_whole_text_for_any_tokens(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=3 * WINDOW))
    whole, said = tokenizer.decode(ids, skip_special_tokens=True), "".join(pieces_of(tokenizer, ids))
    if kind == "sentence pieces":  # a run of bytes that is no text is undone as a whole, and some of it has been said
        assert len(said) == len(whole)
        assert all(mine == theirs for mine, theirs in zip(said, whole, strict=True) if theirs != UNFINISHED)
    else:
        assert said == whole


@pytest.mark.parametrize("kind", ["bytes", "sentence pieces"])
@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60))
def test_the_pieces_of_an_encoded_text_are_the_text(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(text)["input_ids"]
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
    assert UNFINISHED not in "".join(pieces[:-1]) or UNFINISHED in text


@settings(max_examples=50, deadline=None)
@given(text=st.text("ab", max_size=60), stops=st.lists(st.text("ab", min_size=1, max_size=9), max_size=4))
def test_the_token_that_completes_a_stop_string_ends_the_text_before_it(text: str, stops: list[str]) -> None:
    tokenizer = tokenizer_of("bytes")
    ids = tokenizer(text)["input_ids"]
    so_far = [tokenizer.decode(ids[:count]) for count in range(1, len(ids) + 1)]
    ended = next((one for one in so_far if any(stop in one for stop in stops)), text)
    ends = [at for stop in stops if (at := ended.find(stop)) >= 0]
    assert "".join(pieces_of(tokenizer, ids, tuple(stops))) == ended[: min(ends, default=len(ended))]


class Counting:
    """A tokenizer that counts the tokens it decodes; a token is a letter."""

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, ids: list[int], **_: object) -> str:
        self.decoded += len(ids)
        return "".join(map(chr, ids))


def test_a_token_of_a_long_answer_decodes_as_few_tokens_as_one_of_a_short_answer() -> None:
    counting = Counting()
    pieces_of(counting, [97] * 4000)
    assert counting.decoded <= 4000 * (WINDOW + 2)


class CountedText(str):
    """A stop string that counts how often it is cut or compared, and how much of it."""

    work = 0

    def __getitem__(self, key: Any) -> str:
        CountedText.work += len(self)
        return super().__getitem__(key)

    def startswith(self, *prefix: Any) -> bool:
        CountedText.work += len(prefix[0])
        return super().startswith(*prefix)


def test_a_stop_string_longer_than_the_text_costs_no_more_than_the_text() -> None:
    CountedText.work = 0
    said = "".join(pieces_of(Counting(), [97] * 50, (CountedText("a" * 100_000),)))
    assert said == "a" * 50
    assert CountedText.work <= 50 * 51
