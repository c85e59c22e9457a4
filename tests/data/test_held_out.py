from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunedeck.data.held_out import divided

ROWS: list[dict[str, object]] = [
    {"family": f"family {number // 3}", "text": f"text number {number} says this"} for number in range(600)
]


def test_a_family_stands_on_one_side() -> None:
    train, test = divided(ROWS, "family")
    assert len(train) + len(test) == len(ROWS)
    assert not {row["family"] for row in train} & {row["family"] for row in test}


def test_about_a_tenth_is_held_out_and_always_the_same() -> None:
    test = divided(ROWS, "family")[1]
    assert 30 <= len(test) <= 90
    assert divided(list(reversed(ROWS)), "family")[1] == list(reversed(test))


def test_a_near_copy_of_a_training_text_is_left_out_of_the_test_side() -> None:
    test = divided(ROWS, "family")[1]
    trained = divided(ROWS, "family")[0][0]
    words = "permission is granted to copy and change this software for any purpose"
    rows = [
        trained | {"text": words},
        test[0] | {"text": words + " whatsoever"},
        test[1] | {"text": "an entirely different text about something else"},
    ]
    assert divided(rows, "family", unlike="text") == (rows[:1], rows[2:])


def test_within_a_label_one_or_more_stand_on_either_side() -> None:
    rows: list[dict[str, object]] = [
        {"label": label, "template": f"{label} {number}"}
        for label, count in (("alone", 1), ("pair", 2), ("many", 50))
        for number in range(count)
        for _ in range(3)
    ]
    train, test = divided(rows, "template", within="label")
    assert Counter(row["label"] for row in test) == {"pair": 3, "many": 30}
    assert Counter(row["label"] for row in train) == {"alone": 3, "pair": 3, "many": 120}
    assert not {row["template"] for row in train} & {row["template"] for row in test}


@given(st.lists(st.text(), min_size=1))
def test_every_row_stands_on_exactly_one_side(families: list[str]) -> None:
    rows: list[dict[str, object]] = [{"family": family} for family in families]
    train, test = divided(rows, "family")
    assert sorted(str(row["family"]) for row in train + test) == sorted(families)
