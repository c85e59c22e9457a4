"""Columns of a table by their name or a usual one, and their cells as texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.data.table import Table

SHOWN_ROWS = 5


def named_column(table: Table, name: str) -> str:
    """The column of that name; DataError that lists the columns when there is none."""
    if name in table.columns:
        return name
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
    """Columns with a usual name; the first of the usual names wins over all others."""
    found = [column for column in table.columns if column.strip().lower() in names]
    first = [column for column in found if column.strip().lower() == names[0]]
    return first or found


def column_texts(table: Table, column: str) -> list[str]:
    """Every cell of a column as text, "" where it is missing; DataError for what is no text or number."""
    return [_as_text(table, column, number, row[column]) for number, row in enumerate(table.rows, start=1)]


def _as_text(table: Table, column: str, number: int, value: object) -> str:
    """A cell as text that UTF-8 can hold: halves of characters, as broken JSON escapes leave them, become U+FFFD."""
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
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def row_numbers(numbers: Iterable[int]) -> str:
    """The first row numbers, counted from 1 without the header."""
    ordered = sorted(numbers)
    rows = listing(number + 1 for number in ordered[:SHOWN_ROWS])
    return say("rows {rows}", rows=rows + (", ..." if len(ordered) > SHOWN_ROWS else ""))
