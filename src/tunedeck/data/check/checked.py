"""A data file as it was checked: what is in it, what is wrong with it, and its safe repairs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.i18n import listing, say
from tunedeck.data.check.findings import SHOWN, CheckedRow, Finding, near_findings, quick_findings
from tunedeck.data.check.language import Encode, unknown_language
from tunedeck.data.columns import row_numbers
from tunedeck.data.labelled import PLAIN, Example, label_column_of, labels_of_cell, text_column_of
from tunedeck.data.rows import Rows
from tunedeck.data.table import Table
from tunedeck.data.write import row_writer

EXAMPLES = 200
"""The first rows, by which the language is told."""
CHECKED = 100_000
"""Rows of a file that is too large for memory that are checked."""

TokenCounter = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """How long a base lets texts be: its name, the most tokens, and what counts them.

    `encode` returns a text's tokens without special ones, `unknown` is the id of tokens that the base does not know.
    """

    model: str
    tokens: int
    count: TokenCounter
    encode: Encode
    unknown: int | None = None


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """Hold the statistics and findings of a file; lengths in characters: median, 95th percentile, longest."""

    source: str
    rows: int
    columns: tuple[str, ...]
    text_column: str
    label_column: str | None
    labels: dict[str, int]
    lengths: tuple[int, int, int]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def check_table(
    table: Table,
    text: str | None = None,
    label: str | None = None,
    *,
    multi_label: bool = False,
    limit: TokenLimit | None = None,
    held_out: Sequence[CheckedRow] | None = None,
) -> CheckedFile:
    """Check a table; `held_out` are rows of a test file. DataError where no column can be the text."""
    text_column, label_column = columns_of(table, text, label)
    rows = read_rows(table, text_column, label_column, multi_label)
    filled = [row for row in rows if row.text.strip()]
    labelled = [row for row in filled if row.label] if label_column else filled
    findings = [*_empties(rows, filled, label_column is not None and not multi_label)]
    findings += quick_findings(labelled, held_out)
    findings += near_findings(labelled, held_out)
    findings += [*_foreign(filled, limit), *_cut(filled, limit)]
    lengths = sorted(len(row.text) for row in filled) or [0]
    middle, late = int(statistics.median(lengths)), lengths[int(0.95 * (len(lengths) - 1))]
    counts = Counter(row.label for row in labelled if row.label)
    return CheckedFile(
        table.source,
        len(table.rows),
        table.columns,
        text_column,
        label_column,
        dict(counts.most_common()),
        (middle, late, lengths[-1]),
        table.notes,
        tuple(findings),
    )


def columns_of(table: Table, text: str | None, label: str | None) -> tuple[str, str | None]:
    """Return the text column and the label column, None where the table has one column."""
    label_column = None if len(table.columns) == 1 and label is None else label_column_of(table, label, text)
    return text_column_of(table, text, label_column), label_column


def read_rows(table: Table, text_column: str, label_column: str | None, multi_label: bool) -> list[CheckedRow]:
    """Return every row of a table; what is missing, or is neither text nor number, is empty."""
    rows = []
    for number, row in enumerate(table.rows, start=1):
        found = labels_of_cell(row[label_column], multi_label) if label_column is not None else ()
        rows.append(CheckedRow(number, _text(row[text_column]), "; ".join(found or ())))
    return rows


def quick_notes(examples: Sequence[Example], held_out: Sequence[Example] | None, most: int = 3) -> tuple[str, ...]:
    """Return the worst that one pass shows of examples to train on, in `most` lines at most."""
    rows, tested = (
        [CheckedRow(number, one.text, "; ".join(one.labels)) for number, one in enumerate(part, start=1)]
        for part in (examples, held_out or ())
    )
    found = [finding.text for finding in quick_findings(rows, tested or None)]
    return tuple(say("data: {text}", text=text) for text in found[:most])


def write_fixed(
    pieces: Iterable[Table], out: Path, text: str | None = None, label: str | None = None
) -> dict[str, int]:
    """Write the pieces of a table with its safe repairs, in UTF-8, and return how many rows each changed or removed.

    Space around texts and labels goes, full-width letters and digits of labels become plain; rows without a text and
    rows that repeat the text and the label of an earlier row are removed. Everything else stays.
    """
    repairs = {"spaces": 0, "empty": 0, "repeats": 0}
    columns: tuple[str, str | None] | None = None
    seen: set[int] = set()  # 64 bits for a row: among ten million two are taken for equal once in 400,000
    with row_writer(out) as write:
        for table in pieces:
            columns = columns or columns_of(table, text, label)
            kept: Rows = []
            for row in table.rows:
                clean = _repaired(row, *columns)
                key = (_text(clean[columns[0]]), str(clean[columns[1]]) if columns[1] is not None else "")
                if not key[0]:
                    repairs["empty"] += 1
                elif hash(key) in seen:
                    repairs["repeats"] += 1
                else:
                    repairs["spaces"] += clean != row
                    seen.add(hash(key))
                    kept.append(clean)
            write(kept)
    return repairs


def _repaired(row: dict[str, object], text_column: str, label_column: str | None) -> dict[str, object]:
    clean = {**row, text_column: _stripped(row[text_column])}
    if label_column is not None:
        value = _stripped(row[label_column])
        clean[label_column] = value.translate(PLAIN).strip() if isinstance(value, str) else value
    return clean


def write_relabelled(table: Table, out: Path, label_column: str, labels: Mapping[int, str]) -> None:
    """Write a table with other labels for some rows, by row number from 1; the rest stays. Raises as `row_writer`."""
    with row_writer(out) as write:
        write(
            [{**row, label_column: labels.get(number, row[label_column])} for number, row in enumerate(table.rows, 1)]
        )


def write_corrected(
    table: Table, out: Path, labels: Mapping[tuple[str, str], str], text: str | None = None, label: str | None = None
) -> int:
    """Write a table with other labels for the rows of some (text, label), and return the number of these rows.

    Raises DataError where no column can be the text or the label, and as `row_writer`.
    """
    label_column = label_column_of(table, label, text)
    text_column = text_column_of(table, text, label_column)
    asked = {(wanted.strip(), given): new for (wanted, given), new in labels.items()}
    rows = read_rows(table, text_column, label_column, multi_label=False)
    changed = {row.number: asked[key] for row in rows if (key := (row.text.strip(), row.label)) in asked}
    write_relabelled(table, out, label_column, changed)
    return len(changed)


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _text(value: object) -> str:
    if not isinstance(value, (str, int, float)) or value != value:  # a number that is none is a missing value
        return ""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _empties(rows: Sequence[CheckedRow], filled: Sequence[CheckedRow], with_labels: bool) -> list[Finding]:
    found = []
    without_text = [row.number - 1 for row in rows if not row.text.strip()]
    if without_text:
        text = say("rows without a text: {count} ({rows})", count=len(without_text), rows=row_numbers(without_text))
        found.append(Finding("empty_texts", len(without_text), text))
    without_label = [row.number - 1 for row in filled if not row.label] if with_labels else []
    if without_label:
        text = say("rows without a label: {count} ({rows})", count=len(without_label), rows=row_numbers(without_label))
        found.append(Finding("empty_labels", len(without_label), text))
    return found


def _foreign(rows: Sequence[CheckedRow], limit: TokenLimit | None) -> list[Finding]:
    if limit is None:
        return []
    texts = [row.text for row in rows[:EXAMPLES]]
    text = unknown_language(limit.model, texts, limit.encode, limit.unknown)
    return [] if text is None else [Finding("language", len(rows), text)]


def _cut(rows: Sequence[CheckedRow], limit: TokenLimit | None) -> list[Finding]:
    if limit is None:
        return []
    counts = limit.count([row.text for row in rows])
    long = [(count, row) for count, row in zip(counts, rows, strict=True) if count > limit.tokens]
    if not long:
        return []
    lost = sum(count - limit.tokens for count, _ in long) / sum(counts)
    text = say(
        "texts longer than {limit} tokens of {model}, which would be cut: {count} ({share:.1%}), with {lost:.1%} of "
        "all tokens; the longest has {longest}",
        count=len(long),
        share=len(long) / len(rows),
        limit=limit.tokens,
        model=limit.model,
        lost=lost,
        longest=max(count for count, _ in long),
    )
    shown = listing(say("row {row}: {text}", row=row.number, text=count) for count, row in long[:SHOWN])
    return [Finding("cut", len(long), text, (shown,))]
