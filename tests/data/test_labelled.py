from __future__ import annotations

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.labelled import Example, check_classes, label_names, labelled_examples, read_texts
from tunedeck.data.table import Table


def table(**columns: list[object]) -> Table:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Table("data.csv", tuple(columns), rows)


def labels_of(*values: object, multi_label: bool = False) -> list[tuple[str, ...]]:
    found = labelled_examples(table(text=["a"] * len(values), label=list(values)), None, None, multi_label)
    return [example.labels for example in found]


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        (("id", "Text", "LABEL"), "Text", "LABEL"),
        (("评论", "情感"), "评论", "情感"),
        (("sentence", "category", "id"), "sentence", "category"),
        (("text", "comment", "label", "class"), "text", "label"),
        (("文本", "x"), "文本", "x"),
        (("body", "target"), "body", "target"),
    ],
)
def test_obvious_columns_are_found(columns: tuple[str, ...], text: str | None, label: str | None) -> None:
    values: dict[str, list[object]] = {
        column: ["T" if column == text else "L" if column == label else 7] for column in columns
    }
    made = table(**values)
    assert labelled_examples(made, None, None) == [Example("T", ("L",))]


def test_named_columns_win_over_usual_names() -> None:
    made = table(text=["a"], label=["b"], title=["c"], kind=["d"])
    assert labelled_examples(made, "title", "kind") == [Example("c", ("d",))]


@pytest.mark.parametrize(
    ("made", "text", "label", "message"),
    [
        (
            table(one=["a"], two=["b"], label=["c"]),
            None,
            None,
            r"which column holds the text.*one \('a'\), two.*; name it with --text",
        ),
        (table(sentence=["a"], review=["b"], label=["c"]), None, None, "which column holds the text"),
        (
            table(text=["a"], one=["b"], two=["c"]),
            None,
            None,
            r"which column holds the label.*one \('b'\), two.*; name it with --label",
        ),
        (table(text=["a"], class_=["b"], sentiment=["c"], target=["d"]), None, None, "which column holds the label"),
        (table(text=["a"]), None, None, "which column holds the label"),
        (
            table(text=["a"], label=["b"]),
            "txt",
            None,
            r"no column 'txt' \(did you mean 'text'\?\); there are: text, label",
        ),
        (table(text=["a"], label=["b"]), None, "labl", "did you mean 'label'"),
        (table(text=["a"], label=["b"]), "text", "text", "cannot be both"),
        (
            table(id=["1"], messages=["[]"]),
            None,
            None,
            "holds conversations, in its column 'messages'; such data is for --task generate",
        ),
    ],
)
def test_columns_that_are_not_obvious_or_not_there_are_listed(
    made: Table, text: str | None, label: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        labelled_examples(made, text, label)


def test_labels_of_any_simple_kind_become_text() -> None:
    assert labels_of("a", " b ", 1, 1.0, 0.5, True) == [("a",), ("b",), ("1",), ("1",), ("0.5",), ("True",)]


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_missing_labels_are_counted(missing: object) -> None:
    with pytest.raises(DataError, match=r"missing labels in column 'label': 2 \(rows 2, 3\)"):
        labels_of("a", missing, missing)


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_a_label_that_is_a_list_needs_multi_label(value: object) -> None:
    with pytest.raises(DataError, match=r"row 2: the label is .*--multi-label"):
        labels_of("a", value)


def test_several_labels_come_from_lists_and_divided_text() -> None:
    values: tuple[object, ...] = (["x", 1.0], [], None, "", "a, b;c|a", "a", 3)
    assert labels_of(*values, multi_label=True) == [
        ("x", "1"),
        (),
        (),
        (),
        ("a", "b", "c"),
        ("a",),
        ("3",),
    ]


@pytest.mark.parametrize("value", [[["a"]], {"a": 1}])
def test_a_nested_list_of_labels_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="row 1: the label is"):
        labels_of(value, multi_label=True)


def test_a_missing_label_inside_a_list_is_refused() -> None:
    with pytest.raises(DataError, match="missing labels"):
        labels_of(["a", None], multi_label=True)


def test_empty_texts_are_counted_and_can_be_dropped() -> None:
    made = table(text=["a", "", None, " ", float("nan"), "\n", "", "b"], label=[1, 2, 3, 4, 5, 6, None, 8])
    with pytest.raises(
        DataError, match=r"empty texts in column 'text': 6 \(rows 2, 3, 4, 5, 6, \.\.\.\).*--drop-empty"
    ):
        labelled_examples(made, None, None)
    assert labelled_examples(made, None, None, drop_empty=True) == [Example("a", ("1",)), Example("b", ("8",))]


def test_a_column_of_empty_texts_is_an_error_also_when_dropping() -> None:
    with pytest.raises(DataError, match="every text"):
        labelled_examples(table(text=["", ""], label=[1, 2]), None, None, drop_empty=True)


def test_a_text_that_is_a_list_is_refused() -> None:
    with pytest.raises(DataError, match="row 2: column 'text' holds list, not a text"):
        labelled_examples(table(text=["a", ["b"]], label=[1, 2]), None, None)


def test_numbers_are_texts_and_halves_of_characters_are_replaced() -> None:
    made = table(text=[5, "a\ud83d", "\ud83d\ude00"], label=["x"] * 3)
    assert [example.text for example in labelled_examples(made, None, None)] == ["5", "a\ufffd", "\U0001f600"]


def test_texts_to_predict_keep_their_rows() -> None:
    assert read_texts(table(id=[1, 2], body=["a", "b"]), None) == ["a", "b"]
    with pytest.raises(DataError, match=r"empty texts .*: 1 \(rows 2\)"):
        read_texts(table(text=["a", ""]), None)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(("10", "9", "-1"), ("-1", "9", "10")), (("b", "a", "10"), ("10", "a", "b")), ((), ())],
)
def test_label_names_are_sorted_by_value_if_all_are_whole_numbers(
    labels: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert label_names(Example("t", (label,)) for label in labels) == names


def test_one_class_is_not_enough() -> None:
    check_classes(("x", "y"), 2)
    with pytest.raises(DataError, match=r"needs two labels or more, the examples \(1\) have: x"):
        check_classes(("x",), 1)
