"""Where the rows of a hand-made table begin: title rows above its header, or no header at all."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.data.usual_names import USUAL_NAMES

SAMPLE_ROWS = 50
"""The first rows of a table tell where its header is."""
MOST_TITLE_ROWS = 10
_LONGEST_VALUE = 40
"""Characters of a first cell that, found again below, is a value and not a name."""


@dataclass(frozen=True, slots=True)
class Head:
    """Rows to leave out above the table, and whether a row of column names follows."""

    titles: int
    has_names: bool


def find_head(rows: Sequence[Sequence[object]]) -> Head:
    """Find the header in the first rows of a table, blank ones left out.

    A title is a row with only its first cell filled, above rows with more. A first row is not a header if one of its
    cells occurs again further down in its column, or where it has a number in a column of numbers.
    """
    titles = 0
    for row in rows[:MOST_TITLE_ROWS]:
        if not _is_title(row) or all(_filled(other) < 2 for other in rows[titles + 1 :]):
            break
        titles += 1
    rest = rows[titles:]
    return Head(titles, not rest or _names_columns(rest[0], rest[1:]))


def column_names(source: object, cells: Sequence[object]) -> tuple[str, ...]:
    """Return the names in a header row, "column N" for an empty one; DataError where one is there twice."""
    columns = tuple(cell_text(cell).strip() or f"column {number}" for number, cell in enumerate(cells, start=1))
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(say("{path} has more than one column named: {names}", path=source, names=listing(repeated)))
    return columns


def head_notes(source: object, head: Head, columns: Sequence[str]) -> tuple[str, ...]:
    """Return what to tell the user about a table that does not begin with its header."""
    notes = []
    if head.titles:
        notes.append(
            say(
                "{path}: {count} title rows above the header are left out; the columns are {columns}",
                path=source,
                count=head.titles,
                columns=listing(columns),
            )
        )
    if not head.has_names:
        notes.append(
            say(
                "{path} has no header row, so that the first row is data and the columns are called {columns}",
                path=source,
                columns=listing(columns),
            )
        )
    return tuple(notes)


def folded(name: str) -> str:
    """Return a name as it is looked up: full-width characters made plain, lower case, no space around it."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def cell_text(cell: object) -> str:
    """Return a cell as text, "" for None."""
    return "" if cell is None else str(cell)


def _is_title(row: Sequence[object]) -> bool:
    return _filled(row) == 1 and bool(cell_text(row[0]).strip()) and folded(cell_text(row[0])) not in USUAL_NAMES


def _filled(row: Sequence[object]) -> int:
    return sum(bool(cell_text(cell).strip()) for cell in row)


def _names_columns(first: Sequence[object], below: Sequence[Sequence[object]]) -> bool:
    names = [cell_text(cell).strip() for cell in first]
    if len(names) < 2 or any(folded(name) in USUAL_NAMES for name in names):
        return True
    for place, name in enumerate(names):
        values = [cell_text(row[place]).strip() for row in below if place < len(row)]
        if 0 < len(name) <= _LONGEST_VALUE and name in values:
            return False
        if values and all(_is_number(value) for value in (name, *values)):
            return False
    return True


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
