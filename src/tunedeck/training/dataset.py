"""The examples of a run: read, deduplicated, split, checked."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from tunedeck.core.errors import DataError
from tunedeck.core.messages import listing, nearest, say
from tunedeck.data.labelled import Example, check_classes, label_names, labelled_examples
from tunedeck.data.split import deduplicated, split, subset, without_overlap
from tunedeck.data.statistics import Statistics, describe, digest
from tunedeck.data.table import read_table
from tunedeck.training.config import DataSettings


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples to train on and to evaluate on; no text stands in both."""

    source: str
    train: list[Example]
    evaluation: list[Example]
    labels: tuple[str, ...]
    removed: int
    """Examples left out because their text repeats another's."""

    @property
    def sha256(self) -> str:
        """Digest of the training examples."""
        return digest(self.train)

    def statistics(self) -> Statistics:
        """Class balance and lengths of the training examples."""
        return describe(self.train)


def read_dataset(settings: DataSettings, *, multi_label: bool, labels: tuple[str, ...] | None = None) -> Dataset:
    """Read and split a run's data; DataError for files, columns, labels or classes that are not usable."""
    train = _examples(settings, settings.train, multi_label)
    total = len(train)
    if settings.deduplicate:
        train, _ = deduplicated(train)
    if settings.eval is None:
        train, evaluation = split(train, settings.eval_fraction, settings.split_seed)
    else:
        evaluation = _examples(settings, settings.eval, multi_label)
        train, _ = without_overlap(train, evaluation)
    removed = total - len(train) - (len(evaluation) if settings.eval is None else 0)
    if settings.train_size is not None:
        train = subset(train, settings.train_size, settings.split_seed)
    if settings.eval_size is not None:
        evaluation = subset(evaluation, settings.eval_size, settings.split_seed)
    found = label_names(train) if multi_label else check_classes(train)
    known = found if labels is None else labels
    check_labels(train, known)
    check_labels(evaluation, known)
    return Dataset(settings.train, train, evaluation, known, removed)


def check_labels(examples: list[Example], known: tuple[str, ...]) -> None:
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


def _examples(settings: DataSettings, reference: str, multi_label: bool) -> list[Example]:
    table = read_table(reference, settings.encoding)
    return labelled_examples(table, settings.text, settings.label, multi_label, settings.drop_empty)
