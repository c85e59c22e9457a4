"""Read a file of texts that somebody labelled, and add them to the labelled data: `td.label_add`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.data.check.checked import columns_of
from tunedeck.data.columns import column_texts, row_numbers, shorten
from tunedeck.data.labelled import labels_of_cell
from tunedeck.data.prepare import normalised
from tunedeck.data.rows import Rows
from tunedeck.data.table import Table, read_table
from tunedeck.data.write import check_ending, row_writer

TEXT, LABEL, SUGGESTED, PROBABILITY, ROW = "text", "label", "suggested", "probability", "row"
"""Columns of a file to fill in."""


@dataclass(frozen=True, slots=True)
class Added:
    """Counts of what was added to labelled data: the examples, those of each label, and the rows left out."""

    added: int
    labels: dict[str, int]
    blank: int
    repeated: int
    """Texts that were there already, with the same label."""
    total: int
    """Examples there are now."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A row of a table, its number counted from 1, with the labels that its cell holds, none where it is blank."""

    number: int
    text: str
    labels: tuple[str, ...]


def labelled_rows(table: Table, text: str, label: str | None, multi_label: bool) -> list[LabelledRow]:
    """Return the rows of a table that have a text."""
    found = []
    for number, (row, one) in enumerate(zip(table.rows, column_texts(table, text), strict=True), start=1):
        labels = () if label is None else labels_of_cell(row[label], multi_label)
        if one.strip():
            found.append(LabelledRow(number, one, labels))
    return found


def check_new(path: Path) -> None:
    """Raise DataError for a file that cannot be written or exists."""
    check_ending(path)
    if path.exists():
        raise DataError(say("{path} exists already and may hold labels; choose another --out", path=path))


def label_add(
    filled: str,
    out: str | Path,
    *,
    data: str | None = None,
    new_labels: Sequence[str] = (),
    skip_blank: bool = False,
    text: str | None = None,
    label: str | None = None,
    encoding: str = "auto",
    multi_label: bool = False,
) -> Added:
    """Add the texts of a file that `label_next` wrote and somebody filled in to labelled data, and write both to `out`.

    The rows of `data` stay as they are; new ones follow in its columns `text` and `label`. Labels must be among those
    of `data` and `new_labels`; where there are none of either, all are taken. A text that is in `data` with the same
    label is left out. `out` may be `data` itself, which is then replaced once all is written, and no other file that
    exists.

    Raises DataError for rows without a label unless `skip_blank`, for unknown labels, for texts that `data` has with
    another label, and where nothing was filled in.
    """
    place = Path(out)
    if data is None or not _same(place, data):
        check_new(place)
    check_ending(place)
    rows = _filled(read_table(filled, encoding), multi_label, skip_blank)
    given = [row for row in rows if row.labels]
    old = None if data is None else read_table(data, encoding)
    columns = (TEXT, LABEL) if old is None else columns_of(old, text, label)
    if columns[1] is None:
        raise DataError(say("{source} has no column of labels", source=data))
    before = [] if old is None else labelled_rows(old, columns[0], columns[1], multi_label)
    known = {normalised(row.text): row for row in before if row.labels}
    names = {name for row in known.values() for name in row.labels} | set(new_labels)
    if names:
        _check_labels(filled, given, names)
    fresh, repeated = _without_known(filled, given, known, data)
    kept: Rows = [] if old is None else old.rows
    empty = dict.fromkeys((TEXT, LABEL) if old is None else old.columns)
    with row_writer(place) as write:
        write([*kept, *({**empty, columns[0]: row.text, columns[1]: ",".join(row.labels)} for row in fresh)])
    counts = Counter(name for row in fresh for name in row.labels)
    return Added(len(fresh), dict(counts.most_common()), len(rows) - len(given), repeated, len(kept) + len(fresh))


def _same(one: Path, other: str) -> bool:
    place = Path(other).expanduser()
    return one.exists() and place.exists() and one.samefile(place)


def _filled(table: Table, multi_label: bool, skip_blank: bool) -> list[LabelledRow]:
    """Return the rows with a text; DataError for blank labels."""
    if (
        LABEL not in table.columns and SUGGESTED in table.columns
    ):  # a spreadsheet's column without any value is not read
        rows = labelled_rows(table, TEXT, None, multi_label)
    else:
        rows = labelled_rows(table, *columns_of(table, None, None), multi_label)
    blank = [row.number - 1 for row in rows if not row.labels]
    if len(blank) == len(rows):
        raise DataError(
            say("no row of {source} has a label; fill in its column {column!r}", source=table.source, column=LABEL)
        )
    if blank and not skip_blank:
        raise DataError(
            say(
                "{source}: rows without a label: {count} ({rows}); fill them in, or leave them out with --skip-blank",
                source=table.source,
                count=len(blank),
                rows=row_numbers(blank),
            )
        )
    return rows


def _check_labels(source: str, rows: Sequence[LabelledRow], known: set[str]) -> None:
    for row in rows:
        for name in row.labels:
            if name not in known:
                raise DataError(
                    say(
                        "{source}, row {row}: the label {label!r} is unknown", source=source, row=row.number, label=name
                    )
                    + nearest(name, known)
                    + say(
                        "; known: {known}; if it is meant, add --new-label {label}",
                        known=listing(sorted(known)),
                        label=name,
                    )
                )


def _without_known(
    source: str, rows: Sequence[LabelledRow], known: dict[str, LabelledRow], data: str | None
) -> tuple[list[LabelledRow], int]:
    """Return the rows whose text is new, each text once, and how many are not; DataError for two different labels."""
    seen, fresh = dict(known), []
    for row in rows:
        before = seen.setdefault(normalised(row.text), row)
        if before is row:
            fresh.append(row)
        elif set(before.labels) != set(row.labels):
            raise DataError(
                say(
                    "{source}, row {row}: the text {text!r} is labelled {label}, and in {other} row {before} {given}; "
                    "correct one of the two",
                    source=source,
                    row=row.number,
                    text=shorten(row.text),
                    label=listing(row.labels),
                    other=data if before in known.values() else source,
                    before=before.number,
                    given=listing(before.labels),
                )
            )
    return fresh, len(rows) - len(fresh)
