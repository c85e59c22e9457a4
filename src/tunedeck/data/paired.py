"""Columns of pairs of texts, and their rows as TextPairs."""

from __future__ import annotations

from collections.abc import Sequence

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.data.columns import column_texts, named_column, row_numbers, shown_columns
from tunedeck.data.header import folded
from tunedeck.data.table import Table
from tunedeck.data.usual_names import PAIR_COLUMNS


def second_column(table: Table, text: str | None, text_pair: str | None, pairs: bool | None) -> str | None:
    """Return the column of the second texts: the named one, or that of two usual names; None where texts are single.

    With `pairs` None the columns decide, False leaves a second column out, True raises DataError where there is none.
    """
    if text_pair is not None:
        return named_column(table, text_pair)
    if pairs is not False:
        names = {folded(column): column for column in table.columns}
        wanted = None if text is None else folded(text)
        for first, second in PAIR_COLUMNS:
            if first in names and second in names and wanted in (None, first):
                return names[second]
    if not pairs:
        return None
    raise DataError(
        say(
            "{source}: which column holds the second text of each pair? There are: {columns}; name it with --text-pair",
            source=table.source,
            columns=shown_columns(table),
        )
    )


def first_column(table: Table, second: str) -> str | None:
    """Return the column whose usual name goes with that of the second texts."""
    names = {folded(column): column for column in table.columns}
    return next((names[one] for one, other in PAIR_COLUMNS if other == folded(second) and one in names), None)


def paired(table: Table, column: str, firsts: Sequence[str], drop_empty: bool) -> list[str]:
    """Return the first texts with the second ones of a column as TextPairs, "" where a text of the pair is missing.

    Raises DataError for first texts without a second one unless `drop_empty`.
    """
    seconds = column_texts(table, column)
    lacking = [n for n, (a, b) in enumerate(zip(firsts, seconds, strict=True)) if a.strip() and not b.strip()]
    if lacking and not drop_empty:
        raise DataError(
            say(
                "{source}: pairs without a second text in column {column!r}: {count} ({rows}); fill them in, or pass "
                "--drop-empty",
                source=table.source,
                column=column,
                count=len(lacking),
                rows=row_numbers(lacking),
            )
        )
    return [TextPair(a, b) if a.strip() and b.strip() else "" for a, b in zip(firsts, seconds, strict=True)]
