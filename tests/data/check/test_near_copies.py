from __future__ import annotations

import random
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.data.check.near_copies import alike, near_copies

SENTENCE = "the quick brown fox jumps over the lazy dog while the band plays on"


def test_alike_is_the_share_of_common_sequences() -> None:
    assert alike("abcde", "abcde") == 1.0
    assert alike("abcde", "abcdx") == 1 / 3  # abcd of abcd, bcde, bcdx
    assert alike("abcd", "wxyz") == 0.0


def test_a_text_with_another_ending_is_a_near_copy_and_another_text_is_not() -> None:
    texts = ["something else altogether, in other words", SENTENCE, SENTENCE + " and on", "short", "short"]
    assert near_copies(texts) == [(1, 2)]
    assert near_copies([]) == near_copies(["a"]) == near_copies([SENTENCE]) == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=30))
def test_what_is_found_is_alike_and_each_text_is_found_once(texts: list[str]) -> None:
    found = near_copies(texts)
    assert all(first < later and alike(texts[first], texts[later]) >= 0.75 for first, later in found)
    assert len({later for _, later in found}) == len(found)


def test_nearly_all_near_copies_among_many_texts_are_found() -> None:
    chooser = random.Random(0)
    texts = ["".join(chooser.choices(string.ascii_lowercase + " ", k=80)) for _ in range(300)]
    copies = [text[:40] + "X" + text[41:] for text in texts]  # 4 of 77 sequences differ: 73 / 81 alike
    found = near_copies(texts + copies)
    assert len(found) >= 297
    assert all(later == first + 300 for first, later in found)
