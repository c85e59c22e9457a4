"""The examples of a run on scores: read, deduplicated, split, checked."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.data.columns import named_column, number_of, shown_columns, usual_columns
from tunedeck.data.labelled import empty_texts, text_column_of, texts_of
from tunedeck.data.paired import first_column, second_column
from tunedeck.data.pieces import is_large
from tunedeck.data.prepare import Steps, deduplicated, prepare, split, subset, without_overlap
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import Cells, Form, read_filled, stored_examples
from tunedeck.data.stored_labelled import cells_of_text, text_of_cells
from tunedeck.data.table import Table, read_table
from tunedeck.data.usual_names import LABEL_COLUMNS, RATING_COLUMNS
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.score.config import ScoreConfig


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A text, or a TextPair, and a score for each target."""

    text: str
    scores: tuple[float, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Return no labels: examples are divided randomly."""
        return ()


@dataclass(frozen=True, slots=True)
class ScoredTable:
    """The examples of a file, on disk where they are many; their columns, and notes on how it was read."""

    examples: Sequence[ScoredText]
    targets: tuple[str, ...]
    text_column: str
    notes: tuple[str, ...]


def read_scored(settings: DataSettings, task: ScoreConfig) -> Dataset[ScoredText]:
    """Read and split a run's data; DataError for files, columns or scores that are not usable."""
    found = read_examples(settings, settings.train, task)
    notes, held_out = found.notes, None
    if settings.eval is not None:
        other = read_examples(settings, settings.eval, task)
        held_out, notes = other.examples, (*notes, *other.notes)
    steps: Steps[ScoredText] = Steps(
        deduplicate=deduplicated,
        hold_out=lambda examples: split(examples, settings.eval_fraction, settings.split_seed),
        remove_overlap=without_overlap,
        subset=lambda examples, size: subset(examples, size, settings.split_seed),
        digest=_digest,
    )
    prepared = prepare(found.examples, held_out, settings, steps)
    train = prepared.train
    described = say(
        "{source}: {train} examples to train on, {held_out} held out, {removed} repeats left out; {targets}",
        source=settings.train,
        train=len(train),
        held_out=len(prepared.evaluation),
        removed=prepared.left_out,
        targets=reference_lines(found.targets, train, prepared.evaluation),
    )
    return Dataset(
        settings.train,
        train,
        prepared.evaluation,
        prepared.sha256,
        described,
        found.targets,
        text_column=found.text_column,
        notes=notes,
        task_values=scale_of(train, found.targets, task, settings.train, prepared.evaluation),
    )


def read_examples(settings: DataSettings, reference: str, task: ScoreConfig) -> ScoredTable:
    """Read the scored texts or pairs of one file or name."""
    if not is_large(reference):
        table = read_table(reference, settings.encoding)
        columns = _columns_of(table, settings, task)
        examples: Sequence[ScoredText] = _examples_of(table, columns, settings.drop_empty)
    else:

        def reader(first: Table) -> Callable[[Table], Sequence[ScoredText]]:
            own = _columns_of(first, settings, task)
            filled = [one for one in (own.text, own.second) if one is not None] if settings.drop_empty else []
            return lambda piece: read_filled(piece, filled, lambda part: _examples_of(part, own, drop_empty=False))

        examples, table = stored_examples(reference, settings.encoding, _SCORED, reader)
        columns = _columns_of(table, settings, task)
    return ScoredTable(examples, task.labels or columns.targets, columns.text, table.notes)


class _Columns(NamedTuple):
    text: str
    second: str | None
    targets: tuple[str, ...]


def _columns_of(table: Table, settings: DataSettings, task: ScoreConfig) -> _Columns:
    second = second_column(table, settings.text, settings.text_pair, task.pairs)
    targets = _target_columns(table, settings, task)
    text = text_column_of(table, settings.text or (first_column(table, second) if second else None), targets[0])
    if text in targets or second in targets:
        raise DataError(say("the column {column!r} cannot be both text and score", column=text))
    return _Columns(text, second, targets)


def _examples_of(table: Table, columns: _Columns, drop_empty: bool) -> list[ScoredText]:
    texts = texts_of(table, columns.text, columns.second, drop_empty)
    empty = empty_texts(table, columns.text, texts, drop_empty)
    return [
        ScoredText(one, tuple(number_of(table, column, row) for column in columns.targets))
        for row, one in enumerate(texts)
        if row not in empty
    ]


def _of_cells(cells: Cells, labels: tuple[str, ...]) -> ScoredText:
    first, second, scores = cells
    return ScoredText(text_of_cells(first, second), tuple(json.loads(scores or "[]")))


_SCORED: Form[ScoredText] = Form(
    columns=("text", "second", "scores"),
    cells=lambda example: (*cells_of_text(example.text), json.dumps(example.scores)),
    labels=lambda example: example.labels,
    example=_of_cells,
)


def _target_columns(table: Table, settings: DataSettings, task: ScoreConfig) -> tuple[str, ...]:
    """Return the columns of the scores: those that the user names, a usual one, or the only other column of numbers."""
    named = settings.score or settings.label
    if named is not None and (task.labels is None or len(task.labels) == 1):
        return (named_column(table, named),)
    if task.labels is not None and all(target in table.columns for target in task.labels):
        return task.labels
    if task.labels is not None and len(task.labels) > 1:
        return tuple(named_column(table, target) for target in task.labels)
    found = usual_columns(table, RATING_COLUMNS) or usual_columns(table, LABEL_COLUMNS)
    if not found:
        found = [c for c in table.columns if all(isinstance(row[c], int | float) for row in table.rows)]
    if len(found) == 1:
        return (found[0],)
    raise DataError(
        say(
            "{source}: which column holds the score? There are: {columns}; name it with --score, or several with "
            "--labels",
            source=table.source,
            columns=shown_columns(table),
        )
    )


def scale_of(
    train: Sequence[ScoredText],
    targets: Sequence[str],
    task: ScoreConfig,
    source: str,
    held_out: Sequence[ScoredText] = (),
) -> dict[str, Any]:
    """Return the settings of the task that the data decides: means and deviations of the training examples, the levels
    of all; DataError where nothing can be learnt.
    """
    scores = _scores_of(train)
    for target, own in zip(targets, scores.T, strict=True):
        if own.min() == own.max():
            raise DataError(
                say(
                    "{source}: every score of {target} is {value:g}; there is nothing to learn",
                    source=source,
                    target=target,
                    value=own[0],
                )
            )
    values = np.unique(np.concatenate([scores.ravel(), _scores_of(held_out).ravel()]))
    loss = task.loss
    if loss == "auto":
        loss = "logistic" if values.tolist() == [0.0, 1.0] and not task.ordinal else "squared"
    found: dict[str, Any] = {"loss": loss}
    outside = values[(values < 0) | (values > 1)]
    if loss == "squared":
        found["target_means"] = task.target_means or tuple(statistics.fmean(own.tolist()) for own in scores.T)
        found["target_stds"] = task.target_stds or tuple(statistics.pstdev(own.tolist()) for own in scores.T)
    elif len(outside):
        raise DataError(
            say(
                "{source}: with loss: logistic scores must be between 0 and 1, got {value:g}",
                source=source,
                value=outside[0],
            )
        )
    if task.ordinal:
        found["levels"] = task.levels or (math.floor(values[0]), math.ceil(values[-1]))
        check_ordinal(chain(train, held_out), found["levels"], source)
    if isinstance(train[0].text, TextPair):
        found["pairs"] = True
    return found


def _scores_of(examples: Sequence[ScoredText]) -> NDArray[np.float64]:
    """Return the scores of examples (examples, targets)."""
    values = np.fromiter((value for one in examples for value in one.scores), np.float64)
    return values.reshape(len(examples), -1) if len(examples) else values.reshape(0, 1)


def check_ordinal(examples: Iterable[ScoredText], levels: tuple[int, ...], source: str) -> None:
    """Raise DataError for a score that is not a whole number on the scale."""
    for example in examples:
        for value in example.scores:
            if value != int(value) or not levels[0] <= value <= levels[1]:
                raise DataError(
                    say(
                        "{source}: the score {value:g} is not a whole number from {low} to {high}; without "
                        "task.ordinal scores may be any numbers",
                        source=source,
                        value=value,
                        low=levels[0],
                        high=levels[1],
                    )
                )


def reference_lines(targets: Sequence[str], train: Sequence[ScoredText], held_out: Sequence[ScoredText]) -> str:
    """Return for each target how far off it is on held-out scores to always predict the mean of the training scores, or
    their median.
    """
    return "; ".join(
        _reference_line(target, own.tolist(), tested.tolist())
        for target, own, tested in zip(targets, _scores_of(train).T, _scores_of(held_out).T, strict=True)
    )


def _reference_line(target: str, train: Sequence[float], held_out: Sequence[float]) -> str:
    mean, median = statistics.fmean(train), statistics.median(train)
    return say(
        "{target} from {low:g} to {high:g}: always predicting the mean, {mean:.3g}, is off by {mae:.3g} on average "
        "(RMSE {rmse:.3g}), the median, {median:.3g}, by {median_mae:.3g}",
        target=target,
        low=min(train),
        high=max(train),
        mean=mean,
        mae=statistics.fmean(abs(value - mean) for value in held_out),
        rmse=statistics.fmean((value - mean) ** 2 for value in held_out) ** 0.5,
        median=median,
        median_mae=statistics.fmean(abs(value - median) for value in held_out),
    )


def _digest(examples: Iterable[ScoredText]) -> str:
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(json.dumps([example.text, example.scores]).encode("ascii") + b"\n")
    return hashed.hexdigest()
