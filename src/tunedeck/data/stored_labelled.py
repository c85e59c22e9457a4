"""Labelled examples of a file that is too large for memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunedeck.core.text_pair import TextPair
from tunedeck.data.labelled import Example, label_column_of, labelled_examples, text_column_of
from tunedeck.data.paired import first_column, second_column
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import Cells, Form, StoredExamples, read_filled, stored_examples
from tunedeck.data.table import Table


def stored_labelled(
    reference: str, settings: DataSettings, multi_label: bool, pairs: bool | None = None
) -> tuple[StoredExamples[Example], str, tuple[str, ...]]:
    """Return the examples of a large file, its text column and what to tell; see `stored_examples`."""
    column = ""

    def reader(first: Table) -> Callable[[Table], Sequence[Example]]:
        nonlocal column
        second = second_column(first, settings.text, settings.text_pair, pairs)
        text = settings.text or (first_column(first, second) if second else None)
        label = label_column_of(first, settings.label, text)
        column = text_column_of(first, text, label)
        filled = [one for one in (column, second) if one is not None] if settings.drop_empty else []

        def read(table: Table) -> Sequence[Example]:
            return labelled_examples(table, column, label, multi_label, second=second)

        return lambda table: read_filled(table, filled, read)

    examples, first = stored_examples(reference, settings.encoding, LABELLED, reader)
    return examples, column, first.notes


def cells_of_text(text: str) -> Cells:
    """Return a text, or the two of a TextPair, as cells."""
    return (text.first, text.second) if isinstance(text, TextPair) else (text, None)


def text_of_cells(first: str | None, second: str | None) -> str:
    """Return the text or the TextPair of its cells."""
    return first or "" if second is None else TextPair(first or "", second)


LABELLED: Form[Example] = Form(
    columns=("text", "second"),
    cells=lambda example: cells_of_text(example.text),
    labels=lambda example: example.labels,
    example=lambda cells, labels: Example(text_of_cells(*cells), labels),
)
