"""Rows out of text whose values are separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, dropwhile, islice
from pathlib import Path

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.data.header import MOST_TITLE_ROWS, SAMPLE_ROWS, column_names, find_head, folded, head_notes
from tunedeck.data.rows import Columns, Content, Rows
from tunedeck.data.usual_names import USUAL_NAMES

DELIMITERS = (",", ";", "\t")
_SAMPLE_CHARACTERS = 1 << 16
_LONGEST_VALUE = 1 << 26
"""Characters of a value; where a quote is not closed, all that follows would be one."""
_CLEAR = 0.9


def read_csv(path: Path, text: str) -> Content:
    """Read values separated by commas, semicolons or tabs."""
    return _noticed(path, text, ",")


def read_tsv(path: Path, text: str) -> Content:
    """Read values separated by tabs, or by what separates them in truth."""
    return _noticed(path, text, "\t")


def _noticed(path: Path, text: str, usual: str) -> Content:
    delimiter = noticed_delimiter(text, usual)
    content = read_separated(path, text, delimiter)
    if delimiter == usual:
        return content
    name = {",": say("commas"), ";": say("semicolons"), "\t": say("tabs")}[delimiter]
    note = say("{path}: the values are separated by {delimiter}", path=path, delimiter=name)
    return content._replace(notes=(note, *content.notes))


def read_separated(path: Path, text: str, delimiter: str) -> Content:
    """Read values with a separator between them; DataError names the line that cannot be read."""
    return next(separated_pieces(path, io.StringIO(text, newline=""), delimiter, sys.maxsize), Content((), []))


def separated_pieces(path: Path, lines: Iterable[str], delimiter: str, size: int) -> Iterator[Content]:
    """Yield rows as `read_separated` reads them, `size` at a time, at least one piece where there is a header."""
    csv.field_size_limit(_LONGEST_VALUE)
    numbered = _numbered(path, lines, delimiter)
    first = list(islice(numbered, SAMPLE_ROWS))
    head = find_head([values for _, values in first])
    if not first[head.titles :]:
        return
    _, top = first[head.titles]
    columns = column_names(path, top if head.has_names else [""] * len(top))
    body = chain(first[head.titles + head.has_names :], numbered)
    rows = _rows(path, islice(body, size), columns)
    yield Content(columns, rows, head_notes(path, head, columns), head.has_names)
    while rows := _rows(path, islice(body, size), columns):
        yield Content(columns, rows, (), head.has_names)


def _rows(path: Path, numbered: Iterable[tuple[int, list[str]]], columns: Columns) -> Rows:
    rows: Rows = []
    for line, values in numbered:
        _check_width(path, line, columns, values)
        rows.append(dict(zip(columns, values, strict=True)))
    return rows


def _numbered(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield rows that are not blank, each with the line it begins in."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first_line = 1
    try:
        for values in reader:
            if values:
                yield first_line, values
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            say(
                "{path}, the row from line {line}: {reason}; put a text that holds quotes in double quotes and double "
                "each quote inside it",
                path=path,
                line=first_line,
                reason=_reason(error),
            )
        ) from error


def _reason(error: csv.Error) -> str:
    """Return what `csv` raised in the user's language; it has few reasons."""
    text = str(error)
    if "unexpected end" in text or "field limit" in text:
        return say("a double quote is not closed")
    return say("a character follows a closing double quote") if "expected after" in text else text


def _check_width(path: Path, line: int, columns: Sequence[str], values: Sequence[str]) -> None:
    if len(values) != len(columns):
        raise DataError(
            say(
                "{path}, line {line}: {seen} values, but the header has {expected} columns ({columns}); put a text "
                "that holds the separator in double quotes",
                path=path,
                line=line,
                seen=len(values),
                expected=len(columns),
                columns=listing(columns),
            )
        )


def noticed_delimiter(text: str, usual: str) -> str:
    """Return what separates the values: the usual delimiter, unless another divides the first rows better.

    Another has to divide nearly all of them, title rows left out, into the same number of values.
    """
    if folded(text.lstrip().partition("\n")[0]) in USUAL_NAMES:
        return usual  # one column, whose texts may hold anything
    sample = text[:_SAMPLE_CHARACTERS]
    if len(sample) < len(text):
        sample = sample[: sample.rfind("\n") + 1] or sample
    best = max(DELIMITERS, key=lambda one: (*_division(sample, one), one == usual))
    return best if _division(sample, best)[0] else usual


def _division(sample: str, delimiter: str) -> tuple[bool, bool, float, int]:
    """Return how well a delimiter divides the rows after those of one value at the top, the better the greater.

    Whether nearly all have the most frequent number of values, whether the first has a usual name, how many have that
    number, and minus the number of rows at the top.
    """
    rows: list[list[str]] = []
    try:
        for values in islice(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter), SAMPLE_ROWS):
            rows += [values] if values else []
    except csv.Error:
        return False, False, 0.0, 0
    divided = list(dropwhile(lambda values: len(values) == 1, rows))
    titles = len(rows) - len(divided)
    if not divided or titles > MOST_TITLE_ROWS:
        return False, False, 0.0, 0
    width, count = Counter(map(len, divided)).most_common(1)[0]
    share = count / len(divided)
    known = any(folded(name) in USUAL_NAMES for name in divided[0])
    return width > 1 and share >= _CLEAR, known, share, -titles
