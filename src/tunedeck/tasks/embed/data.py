"""Read the data of an embedding run (pairs, triplets or labelled texts), remove repeats and split without leakage."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, TypeAlias

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example, labelled_examples
from tunedeck.data.pairs import Pair, ScoredPair, has_pairs, read_pairs
from tunedeck.data.prepare import Steps, deduplicated, normalised, prepare, split, subset, without_overlap
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import read_table
from tunedeck.tasks.base import Dataset

Examples: TypeAlias = list[Pair] | list[ScoredPair] | list[Example]
"""One of the three; a list never mixes them."""


def read_embedding_data(settings: DataSettings) -> Dataset[Any]:
    """Read and split a run's data. The held-out data may have another form than the training data: scored pairs, for
    example.

    Raises DataError for files, columns or rows that are not usable, and for scored pairs to learn from.
    """
    found, notes = read_examples(settings.train, settings)
    held_out: Examples | None = None
    if settings.eval is not None:
        held_out, more = read_examples(settings.eval, settings)
        notes = (*notes, *more)
    first = found[0]
    if isinstance(first, ScoredPair):
        raise DataError(
            say(
                "{source} holds scored pairs, which are for evaluation; train on pairs, triplets or labelled texts",
                source=settings.train,
            )
        )
    steps = _steps_of_pairs(settings) if isinstance(first, Pair) else _steps_of_texts(settings)
    prepared = prepare(list(found), None if held_out is None else list(held_out), settings, steps)
    train, evaluation = prepared.train, prepared.evaluation
    description = say(
        "{source}: {train} {form} to train on, {held_out} {held_out_form} held out, {left_out} repeats or texts alone "
        "with their label left out",
        source=settings.train,
        train=len(train),
        form=form_of(train[0]),
        held_out=len(evaluation),
        held_out_form=form_of(evaluation[0]),
        left_out=prepared.left_out,
    )
    metric = "spearman" if isinstance(evaluation[0], ScoredPair) else None
    return Dataset(
        settings.train,
        train,
        evaluation,
        prepared.sha256,
        description,
        metric_for_best_model=metric,
        notes=notes,
    )


def read_examples(reference: str, settings: DataSettings) -> tuple[Examples, tuple[str, ...]]:
    """Return the pairs, scored pairs or labelled texts of one source, and what a user should know of how it was
    read.
    """
    table = read_table(reference, settings.encoding)
    if has_pairs(table, settings):
        return read_pairs(table, settings), table.notes
    return labelled_examples(table, settings.text, settings.label, drop_empty=settings.drop_empty), table.notes


def _steps_of_pairs(settings: DataSettings) -> Steps[Any]:
    """No anchor of the held-out pairs is an anchor in training, and no pair is there the other way round."""

    def hold_out(train: Sequence[Pair]) -> tuple[Sequence[Pair], Sequence[Any]]:
        anchors = sorted({normalised(pair.anchor) for pair in train})
        random.Random(settings.split_seed).shuffle(anchors)
        chosen = set(anchors[: min(len(anchors) - 1, max(1, round(len(anchors) * settings.eval_fraction)))])
        evaluation = [pair for pair in train if normalised(pair.anchor) in chosen]
        return _without_pairs(train, evaluation), evaluation

    return Steps(
        deduplicate=lambda found: list({_key(pair): pair for pair in reversed(found)}.values())[::-1],
        hold_out=hold_out,
        remove_overlap=_without_pairs,
        subset=lambda found, size: fewer(found, size, settings.split_seed),
        digest=_digest,
    )


def _without_pairs(train: Sequence[Pair], evaluation: Sequence[Any]) -> list[Pair]:
    pairs = [pair for pair in evaluation if isinstance(pair, Pair)]
    taken = {normalised(pair.anchor) for pair in pairs}
    turned = {(normalised(pair.positive), normalised(pair.anchor)) for pair in pairs}
    return [p for p in train if normalised(p.anchor) not in taken and _key(p)[:2] not in turned]


def _steps_of_texts(settings: DataSettings) -> Steps[Any]:
    """Return labelled texts with two or more of their label; the held-out ones in proportion."""

    def hold_out(found: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Any]]:
        train, evaluation = split(found, settings.eval_fraction, settings.split_seed)
        return _with_partners(train, settings.train), evaluation

    def remove_overlap(train: Sequence[Example], evaluation: Sequence[Any]) -> Sequence[Example]:
        texts = [one for one in evaluation if isinstance(one, Example)]
        return _with_partners(without_overlap(train, texts), settings.train)

    return Steps(
        deduplicate=deduplicated,
        hold_out=hold_out,
        remove_overlap=remove_overlap,
        subset=lambda found, size: fewer(found, size, settings.split_seed),
        digest=_digest,
    )


def _with_partners(train: Sequence[Example], source: str) -> list[Example]:
    counts = Counter(example.labels for example in train)
    train = [example for example in train if counts[example.labels] > 1]
    if len({example.labels for example in train}) < 2:
        raise DataError(
            say("{source}: learning from labels needs two labels with two texts or more each", source=source)
        )
    return train


def fewer(examples: Sequence[Any], size: int | None, seed: int) -> Sequence[Any]:
    """Return at most `size` examples in their original order; of labelled texts, each label in proportion."""
    if size is None or size >= len(examples):
        return examples
    if isinstance(examples[0], Example):
        return subset(examples, size, seed)
    chosen = set(random.Random(seed).sample(range(len(examples)), size))
    return [example for number, example in enumerate(examples) if number in chosen]


def _key(pair: Pair) -> tuple[str, str, str]:
    return normalised(pair.anchor), normalised(pair.positive), normalised(pair.negative or "")


def form_of(example: object) -> str:
    """Return the name for examples of this form."""
    if isinstance(example, Example):
        return say("labelled texts")
    if isinstance(example, ScoredPair):
        return say("scored pairs")
    return say("triplets") if isinstance(example, Pair) and example.negative is not None else say("pairs")


def _digest(examples: Sequence[Any]) -> str:
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(json.dumps(astuple(example)).encode("ascii") + b"\n")
    return hashed.hexdigest()
