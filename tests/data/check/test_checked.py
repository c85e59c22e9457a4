from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunedeck.data.check.checked import CheckedFile, TokenLimit, check_table, quick_notes, write_fixed
from tunedeck.data.check.findings import CheckedRow
from tunedeck.data.labelled import Example
from tunedeck.data.table import Table, read_table

GOOD = [(f"a text about subject number {word}", "xy"[n % 2]) for n, word in enumerate("abcdefghijklmnopqrstuvwx")]


def table(*rows: tuple[object, object]) -> Table:
    return Table("data.csv", ("text", "label"), [{"text": text, "label": label} for text, label in rows])


def kinds(checked: CheckedFile) -> dict[str, int]:
    return {one.kind: one.count for one in checked.findings}


def test_clean_data_has_only_its_numbers() -> None:
    rows = [(f"{word} " * 9, "xy"[n % 2]) for n, word in enumerate("abcdefghijklmnopqrstuvwx")]
    checked = check_table(table(*rows))
    assert (checked.rows, checked.labels, checked.findings) == (24, {"x": 12, "y": 12}, ())
    assert checked.lengths == (18, 18, 18)


def test_each_fault_is_counted_and_shown() -> None:
    rows = [
        *[(f"{word} " * 9, "x") for word in "abcdefghijklmnopqrstuvwx"],
        ("", "x"),
        ("no label", None),
        ("Same text", "x"),
        ("same text!", "y"),
        ("http://example.org/a www.b.org", "x"),
        ("<br/><p>&nbsp;</p>", "x"),
        ("12345 !!", "x"),
        ("write to me@example.org", "x"),
        ("a long sentence that stands here twice but for its end", "x"),
        ("a long sentence that stands here twice but for its END.", "y"),
        ("a long sentence that stands here twice but for its ends", "y"),
    ]
    checked = check_table(table(*rows))
    assert kinds(checked) == {
        "empty_texts": 1,
        "empty_labels": 1,
        "conflicts": 2,
        "small_classes": 1,
        "imbalance": 10,
        "links": 1,
        "html": 1,
        "numbers": 1,
        "personal": 1,
        "repeats": 2,
        "near_copies": 1,
    }
    found = {one.kind: one for one in checked.findings}
    assert found["conflicts"].examples[0] == "row 27: Same text (x, y)"
    assert found["personal"].examples == ("row 32: m***@example.org",)
    assert found["empty_texts"].text == "rows without a text: 1 (rows 25)"
    assert found["near_copies"].text == "near copies of another text: 1, with another label: 1"


def test_uneven_classes_are_told() -> None:
    rows = [(f"{number} text" * 3, "many") for number in range(120)] + [(f"other {n}" * 3, "few") for n in range(11)]
    finding = next(one for one in check_table(table(*rows)).findings if one.kind == "imbalance")
    assert finding.text.startswith("the classes are uneven: many has 120 rows, few 11")


def test_test_texts_in_the_training_data_are_counted_also_near_ones() -> None:
    held_out = [
        CheckedRow(1, "A TEXT about subject number a!"),
        CheckedRow(2, "a text about subject number a, too"),
        CheckedRow(3, "new"),
    ]
    found = kinds(check_table(table(*GOOD), held_out=held_out))
    assert (found["overlap"], found["near_overlap"]) == (1, 1)


def test_texts_longer_than_the_base_allows_are_counted() -> None:
    limit = TokenLimit("base", 5, lambda texts: [len(text.split()) for text in texts], lambda texts: [])
    checked = check_table(table(("a b c d e f g", "x"), ("a", "y")), limit=limit)
    finding = next(one for one in checked.findings if one.kind == "cut")
    assert finding.text == (
        "texts longer than 5 tokens of base, which would be cut: 1 (50.0%), with 25.0% of all tokens; the longest has 7"
    )


@pytest.mark.parametrize(("ids", "told"), [([0] * 20, ["language"]), (list(range(1, 21)), [])])
def test_texts_in_a_language_that_the_base_does_not_know_are_told(ids: list[int], told: list[str]) -> None:
    rows = [
        (f"{letter * 10}质量很差用了两天就坏了", f"{number % 2}")
        for number, letter in enumerate("一二三四五六七八九十百千万亿天地人")
    ]
    limit = TokenLimit("base", 500, lambda texts: [1] * len(texts), lambda texts: [ids for _ in texts], unknown=0)
    found = [one for one in check_table(table(*rows), limit=limit).findings if one.kind == "language"]
    assert [one.kind for one in found] == told
    assert all("base hardly knows the language of these texts: 100% of their tokens" in one.text for one in found)


def test_a_table_without_labels_is_checked_too() -> None:
    made = Table("data.csv", ("text",), [{"text": "same"}, {"text": "same"}])
    checked = check_table(made)
    assert (checked.label_column, kinds(checked)) == (None, {"repeats": 1})


def test_training_says_three_lines_at_most() -> None:
    examples = [Example("same", ("x",)), Example("same", ("y",)), Example("1", ("x",)), Example("a@b.org", ("x",))]
    notes = quick_notes(examples, [Example("same", ("x",))])
    assert notes[:2] == (
        "data: texts with different labels: 1",
        "data: test texts that are in the training data too: 1 of 1",
    )
    assert len(notes) == 3


def test_repairs_are_the_safe_ones_and_counted(tmp_path: Path) -> None:
    made = Table(
        "data.csv",
        ("id", "text", "label"),
        [
            {"id": "1", "text": " good\r ", "label": "ｐos　"},
            {"id": "2", "text": "good", "label": "pos"},
            {"id": "3", "text": "good", "label": "neg"},
            {"id": "4", "text": "  ", "label": "neg"},
            {"id": "5", "text": "fine\rthing", "label": "pos"},
        ],
    )
    out = tmp_path / "fixed.csv"
    pieces = [replace(made, rows=made.rows[:2]), replace(made, rows=made.rows[2:])]
    assert write_fixed(pieces, out) == {"spaces": 1, "empty": 1, "repeats": 1}
    assert [tuple(row.values()) for row in read_table(str(out)).rows] == [
        ("1", "good", "pos"),
        ("3", "good", "neg"),
        ("5", "fine\rthing", "pos"),
    ]
