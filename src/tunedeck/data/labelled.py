"""Texts with their labels, taken from a table's columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.data.columns import column_texts, named_column, row_numbers, shown_columns, usual_columns
from tunedeck.data.paired import first_column, paired
from tunedeck.data.table import Table
from tunedeck.data.usual_names import LABEL_COLUMNS, RARER_LABEL_COLUMNS, RARER_TEXT_COLUMNS, TEXT_COLUMNS

PLAIN: dict[int, str | int] = {
    0x3000: " ",
    **{code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B) if chr(code).isalnum()},
}
"""Full-width letters and digits, as Chinese and Japanese keyboards write them, by their plain ones."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its labels: exactly one, or any number where a text may have several."""

    text: str
    labels: tuple[str, ...]


def labelled_examples(
    table: Table,
    text: str | None,
    label: str | None,
    multi_label: bool = False,
    drop_empty: bool = False,
    second: str | None = None,
) -> list[Example]:
    """Return examples from the named columns, or from the obvious ones where a name is None.

    The texts are TextPairs where `second` names the column of their second texts.

    Numbers as labels become text, 1.0 becomes "1", full-width letters and digits become plain ones. With `multi_label`
    a label cell is a list, or a text divided by `,` `;` or `|`, and may be empty. Raises DataError for columns,
    texts and labels that cannot be used.
    """
    if text is None and second is not None:
        text = first_column(table, second)
    label_column = label_column_of(table, label, text)
    text_column = text_column_of(table, text, label_column)
    if label_column in (text_column, second):
        raise DataError(say("the column {column!r} cannot be both text and label", column=label_column))
    texts = texts_of(table, text_column, second, drop_empty)
    empty = empty_texts(table, text_column, texts, drop_empty)
    read_labels = _several_labels if multi_label else _one_label
    labels = _labels(table, label_column, read_labels, skip=empty)
    return [Example(texts[number], given) for number, given in labels.items()]


def texts_of(table: Table, column: str, second: str | None, drop_empty: bool) -> list[str]:
    """Return the texts of a column, or with `second` the pairs of two; DataError for texts that cannot be used."""
    texts = column_texts(table, column)
    return texts if second is None else paired(table, second, texts, drop_empty)


def empty_texts(table: Table, column: str, texts: Sequence[str], drop_empty: bool) -> set[int]:
    """Return the numbers of the empty texts; DataError where there are some and they are kept, or all are empty."""
    empty = {number for number, value in enumerate(texts) if not value.strip()}
    if empty and not drop_empty:
        raise DataError(
            say(
                "{source}: empty texts in column {column!r}: {count} ({rows}); fill them in, or pass --drop-empty",
                source=table.source,
                count=len(empty),
                column=column,
                rows=row_numbers(empty),
            )
        )
    if len(empty) == len(texts):
        raise DataError(say("{source}: every text in column {column!r} is empty", source=table.source, column=column))
    return empty


def read_texts(table: Table, text: str | None, second: str | None = None) -> list[str]:
    """Return the texts to predict for, one per row, or with `second` the pairs of two columns; DataError when a text is
    missing or empty.
    """
    column = column_to_predict(table, text)
    texts = texts_of(table, column, second, drop_empty=False)
    empty = {number for number, value in enumerate(texts) if not value.strip()}
    if empty:
        raise DataError(
            say(
                "{source}: empty texts in column {column!r}: {count} ({rows}); fill them in or remove these rows",
                source=table.source,
                count=len(empty),
                column=column,
                rows=row_numbers(empty),
            )
        )
    return texts


def column_to_predict(table: Table, name: str | None) -> str:
    """Return the text column of rows whose labels do not matter; see `text_column_of`."""
    return text_column_of(table, name, next(iter(usual_columns(table, LABEL_COLUMNS)), None))


def label_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the different labels in order: by value if all are whole numbers, else by character code."""
    names = sorted({label for example in examples for label in example.labels})
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        names.sort(key=int)
    return tuple(names)


def check_classes(names: tuple[str, ...], examples: int) -> None:
    """Raise DataError when the labels of a number of examples are fewer than two."""
    if len(names) < 2:
        raise DataError(
            say(
                "a classifier needs two labels or more, the examples ({count}) have: {names}; check the label column",
                count=examples,
                names=listing(names),
            )
        )


def text_column_of(table: Table, name: str | None, label_column: str | None) -> str:
    """Return the text column: the named one, a usual name, or the only column that holds text; DataError otherwise.

    Of columns without names, the one with the longest texts.
    """
    if name is not None:
        return named_column(table, name)
    found = usual_columns(table, TEXT_COLUMNS) or usual_columns(table, RARER_TEXT_COLUMNS)
    if not found:
        found = [
            column
            for column in table.columns
            if column != label_column and any(isinstance(row[column], str) for row in table.rows)
        ]
    if len(found) > 1 and not table.named:
        found = [max(found, key=lambda column: sum(len(str(row[column])) for row in table.rows))]
    if len(found) == 1:
        return found[0]
    raise DataError(
        _conversations(table)
        or say(
            "{source}: which column holds the text? There are: {columns}; name it with --text",
            source=table.source,
            columns=shown_columns(table),
        )
    )


def label_column_of(table: Table, name: str | None, text: str | None) -> str:
    """Return the label column: the named one, a usual name, or the only one besides the text; DataError otherwise.

    Of columns without names, the only one besides the text whose values recur.
    """
    if name is not None:
        return named_column(table, name)
    found = usual_columns(table, LABEL_COLUMNS) or usual_columns(table, RARER_LABEL_COLUMNS)
    found = [column for column in found if column != text]
    if not table.named:
        text_column = text or text_column_of(table, None, None)
        found = [column for column in table.columns if column != text_column and _comes_back(table, column)]
    elif not found and len(table.columns) == 2:
        usual = usual_columns(table, TEXT_COLUMNS) or usual_columns(table, RARER_TEXT_COLUMNS)
        text_column = text or next(iter(usual), "")
        found = [column for column in table.columns if column != text_column]
    if len(found) == 1:
        return found[0]
    raise DataError(
        _conversations(table)
        or say(
            "{source}: which column holds the label? There are: {columns}; name it with --label",
            source=table.source,
            columns=shown_columns(table),
        )
    )


def _conversations(table: Table) -> str:
    """Say what to do with a file of conversations; nothing for any other."""
    conversations = [column for column in table.columns if column.lower() in ("messages", "conversations")]
    if not conversations:
        return ""
    return say(
        "{source} holds conversations, in its column {column!r}; such data is for --task generate",
        source=table.source,
        column=conversations[0],
    )


def _comes_back(table: Table, column: str) -> bool:
    """Tell whether a value occurs in two rows or more on average."""
    return len({str(row[column]) for row in table.rows}) <= len(table.rows) / 2


def _labels(
    table: Table, column: str, read: Callable[[object], tuple[str, ...] | None], skip: set[int]
) -> dict[int, tuple[str, ...]]:
    labels: dict[int, tuple[str, ...]] = {}
    missing: list[int] = []
    for number, row in enumerate(table.rows):
        if number in skip:
            continue
        found = read(row[column])
        if found is None:
            raise DataError(
                say(
                    "{source}, row {row}: the label is {kind}; it must be a text or a number, and for several labels "
                    "per text a list together with --multi-label",
                    source=table.source,
                    row=number + 1,
                    kind=type(row[column]).__name__,
                )
            )
        if "" in found:
            missing.append(number)
        labels[number] = found
    if missing:
        raise DataError(
            say(
                "{source}: missing labels in column {column!r}: {count} ({rows}); fill them in or remove these rows",
                source=table.source,
                count=len(missing),
                column=column,
                rows=row_numbers(missing),
            )
        )
    return labels


def labels_of_cell(value: object, multi_label: bool) -> tuple[str, ...]:
    """Return the labels of a cell, none where it is empty or holds what cannot be a label."""
    return tuple(label for label in (_several_labels if multi_label else _one_label)(value) or () if label)


def _one_label(value: object) -> tuple[str, ...] | None:
    """Return the label of a cell: one, `("",)` where it is missing, None where the cell holds something else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ("",)
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)),)
    return (str(value).translate(PLAIN).strip(),) if isinstance(value, (str, int, float)) else None


def _several_labels(value: object) -> tuple[str, ...] | None:
    if isinstance(value, (list, tuple)):
        found = [_one_label(item) for item in value]
        return None if None in found else tuple(dict.fromkeys(label for item in found if item for label in item))
    if isinstance(value, str):
        parts = (part.translate(PLAIN).strip() for part in re.split(r"[,;|，；]", value))
        return tuple(dict.fromkeys(part for part in parts if part))
    single = _one_label(value)
    return () if single == ("",) else single
