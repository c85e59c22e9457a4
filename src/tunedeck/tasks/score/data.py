"""The examples of a run on scores: read, deduplicated, split, checked."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.data.columns import named_column, number_of, shown_columns, usual_columns
from tunedeck.data.labelled import empty_texts, text_column_of, texts_of
from tunedeck.data.paired import first_column, second_column
from tunedeck.data.prepare import Steps, deduplicated, prepare, split, subset, without_overlap
from tunedeck.data.settings import DataSettings
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
        """Return no labels: examples are divided at random."""
        return ()


@dataclass(frozen=True, slots=True)
class ScoredTable:
    """The examples of a file, their columns, and notes on how it was read."""

    examples: list[ScoredText]
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
    table = read_table(reference, settings.encoding)
    second = second_column(table, settings.text, settings.text_pair, task.pairs)
    columns = _target_columns(table, settings, task)
    text = settings.text or (first_column(table, second) if second else None)
    text_column = text_column_of(table, text, columns[0])
    if text_column in columns or second in columns:
        raise DataError(say("the column {column!r} cannot be both text and score", column=text_column))
    texts = texts_of(table, text_column, second, settings.drop_empty)
    empty = empty_texts(table, text_column, texts, settings.drop_empty)
    examples = [
        ScoredText(one, tuple(number_of(table, column, row) for column in columns))
        for row, one in enumerate(texts)
        if row not in empty
    ]
    return ScoredTable(examples, task.labels or columns, text_column, table.notes)


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
    series = [[one.scores[place] for one in train] for place in range(len(targets))]
    for target, own in zip(targets, series, strict=True):
        if min(own) == max(own):
            raise DataError(
                say(
                    "{source}: every score of {target} is {value:g}; there is nothing to learn",
                    source=source,
                    target=target,
                    value=own[0],
                )
            )
    values = {value for one in (*train, *held_out) for value in one.scores}
    loss = task.loss
    if loss == "auto":
        loss = "logistic" if values == {0.0, 1.0} and not task.ordinal else "squared"
    found: dict[str, Any] = {"loss": loss}
    outside = [value for value in sorted(values) if not 0 <= value <= 1]
    if loss == "squared":
        found["target_means"] = task.target_means or tuple(map(statistics.fmean, series))
        found["target_stds"] = task.target_stds or tuple(map(statistics.pstdev, series))
    elif outside:
        raise DataError(
            say(
                "{source}: with loss: logistic scores lie between 0 and 1, got {value:g}",
                source=source,
                value=outside[0],
            )
        )
    if task.ordinal:
        found["levels"] = task.levels or (math.floor(min(values)), math.ceil(max(values)))
        check_ordinal((*train, *held_out), found["levels"], source)
    if isinstance(train[0].text, TextPair):
        found["pairs"] = True
    return found


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
        _reference_line(target, [one.scores[place] for one in train], [one.scores[place] for one in held_out])
        for place, target in enumerate(targets)
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
