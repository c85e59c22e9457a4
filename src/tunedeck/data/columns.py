"""Columns of a table by their name or a usual one, and their cells as texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.data.header import folded
from tunedeck.data.table import Table

SHOWN_ROWS = 5
_SAMPLES = 2
_SAMPLE_CHARACTERS = 30


def named_column(table: Table, name: str) -> str:
    """Return the column of that name; DataError that lists the columns when there is none."""
    if name in table.columns:
        return name
    alike = [column for column in table.columns if folded(column) == folded(name)]
    if len(alike) == 1:
        return alike[0]
    raise DataError(
        say(
            "{source} has no column {name!r}{hint}; there are: {columns}",
            source=table.source,
            name=name,
            hint=nearest(name, table.columns),
            columns=listing(table.columns),
        )
    )


def usual_columns(table: Table, names: tuple[str, ...]) -> list[str]:
    """Return columns with a usual name; the first of the usual names wins over all others."""
    found = [column for column in table.columns if folded(column) in names]
    first = [column for column in found if folded(column) == names[0]]
    return first or found


def shown_columns(table: Table) -> str:
    """Return the columns with the first values of each, for a message that asks which to use."""
    return listing(f"{column} ({', '.join(_samples(table, column))})" for column in table.columns)


def _samples(table: Table, column: str) -> list[str]:
    values = (str(row[column]).strip() for row in table.rows[: 10 * SHOWN_ROWS] if row[column] is not None)
    chosen = list(dict.fromkeys(value for value in values if value))[:_SAMPLES]
    return [repr(shorten(value)) for value in chosen] or [say("empty")]


def shorten(text: str, longest: int = _SAMPLE_CHARACTERS) -> str:
    """Return a text on one line, cut to a number of characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def column_texts(table: Table, column: str) -> list[str]:
    """Return every cell of a column as text, "" where it is missing; DataError for values that are not text or
    numbers.
    """
    return [_as_text(table, column, number, row[column]) for number, row in enumerate(table.rows, start=1)]


def _as_text(table: Table, column: str, number: int, value: object) -> str:
    """Return a cell as text that UTF-8 can hold: halves of characters, as broken JSON escapes leave them, become
    U+FFFD.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, (str, int, float)):
        raise DataError(
            say(
                "{source}, row {row}: column {column!r} holds {kind}, not a text",
                source=table.source,
                row=number,
                column=column,
                kind=type(value).__name__,
            )
        )
    text = str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number_of(table: Table, column: str, row: int) -> float:
    """Return a cell as a finite number; DataError where it holds none."""
    value = table.rows[row][column]
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    raise DataError(
        say(
            "{source}, row {row}: column {column!r} holds {value!r}, not a number",
            source=table.source,
            row=row + 1,
            column=column,
            value=value,
        )
    )


def row_numbers(numbers: Iterable[int]) -> str:
    """Return the first row numbers, counted from 1 without the header."""
    ordered = sorted(numbers)
    rows = listing(number + 1 for number in ordered[:SHOWN_ROWS])
    return say("rows {rows}", rows=rows + (", ..." if len(ordered) > SHOWN_ROWS else ""))
