"""Labelled examples of a classification run: read, deduplicated, split, checked."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.text_pair import TextPair
from tunedeck.data.check.checked import CHECKED, quick_notes
from tunedeck.data.labelled import (
    Example,
    check_classes,
    label_column_of,
    label_names,
    labelled_examples,
    text_column_of,
)
from tunedeck.data.paired import first_column, second_column
from tunedeck.data.pieces import is_large
from tunedeck.data.prepare import (
    Statistics,
    Steps,
    deduplicated,
    describe,
    digest,
    one_of_each,
    prepare,
    split,
    subset,
    without_overlap,
)
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored_labelled import stored_labelled
from tunedeck.data.table import Table, read_table
from tunedeck.tasks.base import Dataset

UNEVEN = 10.0
"""Ratio of the most frequent label's examples to the rarest's above which accuracy says little."""
LABELS_NAMED = 8
"""The most labels that the line on the data names; of more it names the most frequent."""


def read_labelled(
    settings: DataSettings, *, multi_label: bool, labels: tuple[str, ...] | None, pairs: bool | None = None
) -> Dataset[Example]:
    """Read and split a run's data; DataError for files, columns, labels or classes that are not usable."""
    examples, text_column, notes = _read(settings, settings.train, multi_label, pairs)
    held_out = None
    if settings.eval is not None:
        held_out, _, more = _read(settings, settings.eval, multi_label, pairs)
        notes = (*notes, *more)
    steps: Steps[Example] = Steps(
        deduplicate=deduplicated,
        hold_out=lambda found: split(found, settings.eval_fraction, settings.split_seed),
        remove_overlap=without_overlap,
        subset=lambda found, size: subset(found, size, settings.split_seed),
        digest=digest,
    )
    prepared = prepare(examples, held_out, settings, steps)
    train, evaluation = prepared.train, prepared.evaluation
    found = label_names(one_of_each(train))
    if not multi_label and labels is None:
        check_classes(found, len(train))
    known = found if labels is None else labels
    check_labels(one_of_each(train), known)
    check_labels(one_of_each(evaluation), known)
    described = describe(train)
    description = _described(settings.train, described, len(evaluation), prepared.left_out)
    notes = (*notes, *quick_notes(examples[:CHECKED], held_out and held_out[:CHECKED]))
    ratio = max(described.label_counts.values()) / min(described.label_counts.values())
    uneven = ratio > UNEVEN and not multi_label
    if uneven:
        notes = (*notes, _note_of_uneven_labels(ratio))
    return Dataset(
        settings.train,
        train,
        evaluation,
        prepared.sha256,
        description,
        known,
        metric_for_best_model="macro_f1" if uneven else None,
        text_column=text_column,
        notes=notes,
        task_values={"pairs": True} if isinstance(train[0].text, TextPair) else {},
    )


def _note_of_uneven_labels(ratio: float) -> str:
    return say(
        "the most frequent label has {ratio:.0f} times the examples of the rarest: the best state is chosen by "
        "macro-F1; task.class_weights: balanced gives rare labels the weight of frequent ones",
        ratio=ratio,
    )


def _read(
    settings: DataSettings, reference: str, multi_label: bool, pairs: bool | None
) -> tuple[Sequence[Example], str, tuple[str, ...]]:
    """Return examples, their text column, and what a user should know of how they were read; on disk where they are
    many.
    """
    if is_large(reference):
        return stored_labelled(reference, settings, multi_label, pairs)
    table = read_table(reference, settings.encoding)
    examples = _examples_of(table, settings, multi_label, pairs)
    second = second_column(table, settings.text, settings.text_pair, pairs)
    text = settings.text or (first_column(table, second) if second else None)
    text_column = text_column_of(table, text, label_column_of(table, settings.label, text))
    return examples, text_column, table.notes


def check_labels(examples: Sequence[Example], known: tuple[str, ...]) -> None:
    """Raise DataError when an example has a label that the adapter was not trained on."""
    for example in examples:
        for label in example.labels:
            if label not in known:
                raise DataError(
                    say(
                        "the text {text!r} has the unknown label {label!r}",
                        text=textwrap.shorten(example.text, 60),
                        label=label,
                    )
                    + nearest(label, known)
                    + say("; known: {known}", known=listing(known))
                )


def read_examples(
    settings: DataSettings, reference: str, multi_label: bool, pairs: bool | None = None
) -> tuple[list[Example], tuple[str, ...]]:
    """Return labelled examples of one file or name, and what a user should know of how it was read."""
    table = read_table(reference, settings.encoding)
    return _examples_of(table, settings, multi_label, pairs), table.notes


def _examples_of(table: Table, settings: DataSettings, multi_label: bool, pairs: bool | None) -> list[Example]:
    second = second_column(table, settings.text, settings.text_pair, pairs)
    return labelled_examples(table, settings.text, settings.label, multi_label, settings.drop_empty, second)


def _described(source: str, found: Statistics, held_out: int, removed: int) -> str:
    """Return class balance and lengths in a line."""
    counts = found.label_counts
    named = sorted(counts, key=lambda label: -counts[label])[:LABELS_NAMED] if len(counts) > LABELS_NAMED else counts
    balance = ", ".join(f"{label} {counts[label] / found.size:.0%}" for label in named)
    if len(counts) > LABELS_NAMED:
        balance = say("{shown} and {count} more", shown=balance, count=len(counts) - LABELS_NAMED)
    return say(
        "{source}: {train} examples to train on, {held_out} held out, {removed} repeats left out; {balance}; "
        "length in characters: mean {mean:.0f}, median {median:.0f}, 95% below {p95:.0f}, longest {longest}",
        source=source,
        train=found.size,
        held_out=held_out,
        removed=removed,
        balance=balance,
        mean=found.mean_characters,
        median=found.median_characters,
        p95=found.p95_characters,
        longest=found.max_characters,
    )
