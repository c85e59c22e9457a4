"""Words of a text, windows over its tokens, and entities from tags."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunedeck.core.tagging import OUTSIDE, Run, Word, runs_of, tags_of, windows_of, words_of


def pieces(*texts: str) -> list[tuple[int, int]]:
    """Places of tokens that follow each other without a gap; a token may begin with its space."""
    offsets, at = [], 0
    for text in texts:
        offsets.append((at, at + len(text)))
        at += len(text)
    return offsets


def test_the_first_token_of_a_word_stands_for_the_whole_word() -> None:
    text = "Ang ela, Merkel"
    words = words_of("Angela, Merkel", [(0, 3), (3, 6), (6, 7), (8, 11), (11, 14)], "first")
    assert [text.replace("Ang ela", "Angela")[word.start : word.end] for word in words] == ["Angela", ",", "Merkel"]
    assert [word.piece for word in words] == [0, 2, 3]


def test_every_token_is_a_word_where_all_are_tagged() -> None:
    assert [tuple(word) for word in words_of("Angela", [(0, 3), (3, 6)], "all")] == [(0, 0, 3), (1, 3, 6)]


def test_chinese_tokens_are_words_of_their_own_and_latin_ones_beside_them_are_not_torn() -> None:
    text = "打开iPhone上的灯"
    words = words_of(text, pieces("打开", "iP", "hone", "上", "的灯"), "first")
    assert [text[word.start : word.end] for word in words] == ["打开", "iPhone", "上", "的灯"]


def test_korean_has_spaces_and_thai_has_none() -> None:
    assert len(words_of("서울에서", pieces("서울", "에서"), "first")) == 1
    assert len(words_of("กรุงเทพ", pieces("กรุง", "เทพ"), "first")) == 2


def test_a_space_in_a_token_is_not_in_its_word_and_a_lone_space_is_no_word() -> None:
    assert words_of("in Paris ", pieces("in", " Paris", " "), "first") == [Word(0, 0, 2), Word(1, 3, 8)]


def test_bytes_of_one_character_are_one_word() -> None:
    assert words_of("龘x", [(0, 1), (0, 1), (0, 1), (1, 2)], "all") == [Word(0, 0, 1), Word(3, 1, 2)]


@given(count=st.integers(0, 300), room=st.integers(1, 40))
def test_every_token_is_decided_by_exactly_one_window_that_holds_it(count: int, room: int) -> None:
    windows = windows_of(count, room)
    assert [at for window in windows for at in range(window.first, window.last)] == list(range(count))
    for window in windows:
        assert 0 <= window.start <= window.first <= window.last <= window.end <= count
        assert window.end - window.start == min(room, count)


def test_a_token_is_decided_where_more_of_its_context_is_seen() -> None:
    # room 8, a quarter shared: windows begin at 0, 6 and 12; the border lies in the middle of what two share
    assert [tuple(window) for window in windows_of(20, 8)] == [(0, 8, 0, 7), (6, 14, 7, 13), (12, 20, 13, 20)]


@pytest.mark.parametrize(
    ("tags", "runs"),
    [
        ("B-P I-P O B-L", [Run(0, 2, "P"), Run(3, 4, "L")]),
        ("I-P I-P O I-L", [Run(0, 2, "P"), Run(3, 4, "L")]),  # IOB1
        ("I-P B-P I-P", [Run(0, 1, "P"), Run(1, 3, "P")]),  # IOB1: two neighbours
        ("B-P I-P E-P S-P", [Run(0, 3, "P"), Run(3, 4, "P")]),  # IOBES
        ("B-P M-P L-P U-P W-P", [Run(0, 3, "P"), Run(3, 4, "P"), Run(4, 5, "P")]),  # its relatives
        ("B-P I-L", [Run(0, 1, "P"), Run(1, 2, "L")]),
        ("E-P I-P", [Run(0, 1, "P"), Run(1, 2, "P")]),
        ("B_P I_P", [Run(0, 2, "P")]),
        ("P P O", [Run(0, 2, "P")]),  # a bare label
        ("O", []),
    ],
)
def test_tags_of_every_scheme_mean_entities(tags: str, runs: list[Run]) -> None:
    assert runs_of(tags.split()) == runs


def test_spans_become_tags_and_come_back() -> None:
    chooser = random.Random(0)
    words = [Word(number, 3 * number, 3 * number + 2) for number in range(30)]
    for _ in range(50):
        borders = sorted(chooser.sample(range(31), 8))
        spans = [
            (words[first].start, words[last - 1].end, chooser.choice("PL"))
            for first, last in zip(borders[::2], borders[1::2], strict=True)
        ]
        tags, uneven = tags_of(words, spans)
        assert uneven == 0
        assert [(words[run.first].start, words[run.last - 1].end, run.label) for run in runs_of(tags)] == spans


def test_a_span_inside_a_word_takes_the_word_and_is_counted() -> None:
    words = [Word(0, 0, 6), Word(1, 7, 10)]
    assert tags_of(words, [(2, 5, "P")]) == (["B-P", OUTSIDE], 1)
    assert tags_of(words, [(0, 3, "P"), (3, 6, "L")]) == (["B-P", OUTSIDE], 2)
    assert tags_of(words, [(6, 7, "P")]) == ([OUTSIDE, OUTSIDE], 1)
