from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.data.labelled import Example, label_names
from tunedeck.data.prepare import (
    Statistics,
    Steps,
    deduplicated,
    describe,
    digest,
    normalised,
    prepare,
    split,
    subset,
    without_overlap,
)
from tunedeck.data.settings import DataSettings

examples_lists = st.lists(st.builds(Example, st.text(), st.sampled_from([("a",), ("b",), ("c",), (), ("a", "b")])))


def made(**counts: int) -> list[Example]:
    return [Example(f"{label} {number}", (label,)) for label, count in counts.items() for number in range(count)]


@pytest.mark.parametrize(
    "repeat",
    [
        "Best flight EVER!",
        "RT @anna: best flight ever",
        "rt @anna best flight ever",
        "@united best flight ever https://t.co/abc",
        "best   flight\never... www.example.com",
    ],
)
def test_what_a_retweet_adds_does_not_count(repeat: str) -> None:
    assert normalised(repeat) == "best flight ever"


def test_texts_that_differ_in_a_word_or_have_no_words_stay_apart() -> None:
    texts = ["很好，喜欢", "很好，不喜欢", "👍", "👎", "@anna", "@bert", "3.5", "35"]
    assert len({normalised(text) for text in texts}) == len(texts)
    assert normalised("很好，喜欢！") == normalised("很好 喜欢")


def test_the_first_of_equal_texts_stands_with_its_label() -> None:
    kept = deduplicated([Example("a b", ("x",)), Example("c", ("y",)), Example("RT @u: A, b!", ("z",))])
    assert kept == [Example("a b", ("x",)), Example("c", ("y",))]


@settings(deadline=None)
@given(examples_lists)
def test_removing_repeats_twice_removes_nothing_more(examples: list[Example]) -> None:
    kept = deduplicated(examples)
    assert len({normalised(e.text) for e in examples}) == len(kept)
    assert deduplicated(kept) == kept


@settings(deadline=None)
@given(examples_lists, examples_lists)
def test_without_overlap_no_text_is_on_both_sides(train: list[Example], evaluation: list[Example]) -> None:
    kept = without_overlap(train, evaluation)
    assert all(e in kept for e in train if normalised(e.text) not in {normalised(o.text) for o in evaluation})
    assert not {normalised(e.text) for e in kept} & {normalised(e.text) for e in evaluation}


@settings(deadline=None)
@given(examples_lists, st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_split_loses_nothing_and_keeps_every_label_in_training(
    examples: list[Example], fraction: float, seed: int
) -> None:
    if len(examples) <= len({example.labels for example in examples}):
        return
    train, evaluation = split(examples, fraction, seed)
    assert sorted(map(repr, [*train, *evaluation])) == sorted(map(repr, examples))
    assert evaluation
    assert label_names(train) == label_names(examples)


def test_a_split_is_in_proportion_and_the_same_for_a_seed() -> None:
    examples = made(a=60, b=30, c=10)
    train, evaluation = split(examples, 0.2, seed=3)
    assert [len([e for e in evaluation if e.labels == (label,)]) for label in "abc"] == [12, 6, 2]
    assert (train, evaluation) == split(examples, 0.2, seed=3)
    assert evaluation != split(examples, 0.2, seed=4)[1]
    assert evaluation == sorted(evaluation, key=examples.index)


def test_the_draw_for_a_seed_never_changes() -> None:
    _, evaluation = split(made(a=5, b=5), 0.4, seed=0)
    assert [example.text for example in evaluation] == ["a 3", "a 4", "b 0", "b 2"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split(made(a=4), fraction, 0)


@pytest.mark.parametrize("examples", [[], made(a=1, b=1)])
def test_too_few_examples_to_hold_some_out_is_an_error(examples: list[Example]) -> None:
    with pytest.raises(DataError, match="too few"):
        split(examples, 0.5, 0)


@settings(deadline=None)
@given(examples_lists, st.integers(1, 30), st.integers(0, 99))
def test_a_subset_has_the_size_asked_for_and_every_label_that_has_room(
    examples: list[Example], size: int, seed: int
) -> None:
    chosen = subset(examples, size, seed)
    assert len(chosen) == min(size, len(examples))
    assert chosen == subset(examples, size, seed)
    if size >= len({example.labels for example in examples}):
        assert label_names(chosen) == label_names(examples)


def test_a_subset_is_in_proportion() -> None:
    chosen = subset(made(a=60, b=30, c=10), 20, seed=0)
    assert [len([e for e in chosen if e.labels == (label,)]) for label in "abc"] == [12, 6, 2]


def test_a_subset_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more, got 0"):
        subset(made(a=4), 0, 0)


def test_statistics_of_a_hand_counted_set() -> None:
    examples = [Example("x" * length, ("10" if length > 2 else "9",)) for length in range(1, 21)]
    assert describe(examples) == Statistics(20, {"9": 2, "10": 18}, 10.5, 10.5, 19, 20)
    assert list(describe(examples).label_counts) == ["9", "10"]


def test_every_label_of_an_example_counts() -> None:
    assert describe([Example("a", ("x", "y")), Example("b", ())]).label_counts == {"x": 1, "y": 1}


def test_nothing_cannot_be_described() -> None:
    with pytest.raises(DataError, match="no examples"):
        describe([])


def test_the_digest_sees_texts_labels_and_their_order() -> None:
    a, b = Example("很好", ("x",)), Example("b", ("x", "y"))
    variants = [[a, b], [b, a], [a], [], [a, Example("b", ("y", "x"))], [a, Example("b", ("x",))]]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest([a, b]) == digest(iter([a, b]))
    assert digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def letters(held_out: list[str] | None = None, **changes: Any) -> list[object]:
    """What is left of some letters, with the last ones held out, and how many were left out."""
    steps: Steps[str] = Steps(
        deduplicate=lambda found: list(dict.fromkeys(found)),
        hold_out=lambda found: (found[:-2], found[-2:]),
        remove_overlap=lambda train, evaluation: [one for one in train if one not in evaluation],
        subset=lambda found, size: found[:size],
        digest="".join,
    )
    found = prepare(list("abacad"), held_out, DataSettings(train="letters", **changes), steps)
    return [found.sha256, "".join(found.evaluation), found.left_out]


def test_preparing_counts_what_repeats_and_overlap_left_out_but_not_what_a_size_did() -> None:
    assert letters() == ["ab", "cd", 2]
    assert letters(deduplicate=False) == ["abac", "ad", 0]
    assert letters(held_out=["a", "x"]) == ["bcd", "ax", 3]
    assert letters(held_out=["a", "x"], train_size=1, eval_size=1) == ["b", "a", 3]


def test_preparing_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="letters leaves nothing to train on"):
        letters(held_out=list("abcd"))
