"""What an embedding run learns from: pairs, triplets or labelled texts, read, repeats removed, split so that nothing leaks."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, TypeAlias, TypeVar

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example, labelled_examples
from tunedeck.data.pairs import Pair, Scored, has_pairs, read_pairs
from tunedeck.data.settings import DataSettings
from tunedeck.data.split import deduplicated, normalised, split, subset, without_overlap
from tunedeck.data.table import read_table
from tunedeck.tasks.base import Dataset

Examples: TypeAlias = list[Pair] | list[Scored] | list[Example]
"""One of the three; a list never mixes them."""
T = TypeVar("T")


def read_embedding_data(settings: DataSettings) -> Dataset[Any]:
    """Read and split a run's data. What is held out may be of another form than what is learnt: scored pairs, for example.

    Raises DataError for files, columns or rows that are not usable, and for scored pairs to learn from.
    """
    found = read_examples(settings.train, settings)
    held_out = None if settings.eval is None else read_examples(settings.eval, settings)
    first = found[0]
    if isinstance(first, Scored):
        raise DataError(
            say(
                "{source} holds scored pairs, which are for evaluation; train on pairs, triplets or labelled texts",
                source=settings.train,
            )
        )
    train, evaluation = (
        _divided_pairs(_of(Pair, found), held_out, settings)
        if isinstance(first, Pair)
        else _divided_texts(_of(Example, found), held_out, settings)
    )
    kept = len(train) + (len(evaluation) if held_out is None else 0)
    if not train or not evaluation:
        raise DataError(say("{source} leaves nothing to train on or nothing to evaluate on", source=settings.train))
    train = fewer(train, settings.train_size, settings.split_seed)
    evaluation = fewer(evaluation, settings.eval_size, settings.split_seed)
    description = say(
        "{source}: {train} {form} to train on, {held_out} {held_out_form} held out, {left_out} repeats or texts alone "
        "with their label left out",
        source=settings.train,
        train=len(train),
        form=form_of(train[0]),
        held_out=len(evaluation),
        held_out_form=form_of(evaluation[0]),
        left_out=len(found) - kept,
    )
    best_by = "spearman" if isinstance(evaluation[0], Scored) else None
    return Dataset(settings.train, train, evaluation, _digest(train), description, best_by=best_by)


def read_examples(reference: str, settings: DataSettings) -> Examples:
    """The pairs, scored pairs or labelled texts of one source, whichever its columns are."""
    table = read_table(reference, settings.encoding)
    if has_pairs(table, settings):
        return read_pairs(table, settings)
    return labelled_examples(table, settings.text, settings.label, drop_empty=settings.drop_empty)


def _divided_pairs(found: list[Pair], held_out: Examples | None, settings: DataSettings) -> tuple[list[Any], list[Any]]:
    """No anchor of the held-out pairs is an anchor in training, and no pair stands there the other way round."""
    train = list({_key(pair): pair for pair in reversed(found)}.values())[::-1] if settings.deduplicate else found
    if held_out is None:
        anchors = sorted({normalised(pair.anchor) for pair in train})
        random.Random(settings.split_seed).shuffle(anchors)
        chosen = set(anchors[: min(len(anchors) - 1, max(1, round(len(anchors) * settings.eval_fraction)))])
        evaluation: list[Any] = [pair for pair in train if normalised(pair.anchor) in chosen]
    else:
        evaluation = list(held_out)
    pairs = [pair for pair in evaluation if isinstance(pair, Pair)]
    taken = {normalised(pair.anchor) for pair in pairs}
    turned = {(normalised(pair.positive), normalised(pair.anchor)) for pair in pairs}
    train = [p for p in train if normalised(p.anchor) not in taken and _key(p)[:2] not in turned]
    return train, evaluation


def _divided_texts(
    found: list[Example], held_out: Examples | None, settings: DataSettings
) -> tuple[list[Any], list[Any]]:
    """Labelled texts with two or more of their label; the held-out ones in proportion."""
    train = deduplicated(found)[0] if settings.deduplicate else found
    evaluation: list[Any]
    if held_out is None:
        train, evaluation = split(train, settings.eval_fraction, settings.split_seed)
    else:
        evaluation = list(held_out)
        train, _ = without_overlap(train, [one for one in evaluation if isinstance(one, Example)])
    counts = Counter(example.labels for example in train)
    train = [example for example in train if counts[example.labels] > 1]
    if len({example.labels for example in train}) < 2:
        raise DataError(
            say("{source}: learning from labels needs two labels with two texts or more each", source=settings.train)
        )
    return train, evaluation


def fewer(examples: list[Any], size: int | None, seed: int) -> list[Any]:
    """At most `size` examples in their original order; of labelled texts, each label in proportion."""
    if size is None or size >= len(examples):
        return examples
    if isinstance(examples[0], Example):
        return subset(examples, size, seed)
    chosen = set(random.Random(seed).sample(range(len(examples)), size))
    return [example for number, example in enumerate(examples) if number in chosen]


def _of(cls: type[T], examples: Sequence[Any]) -> list[T]:
    assert all(isinstance(example, cls) for example in examples)
    return list(examples)


def _key(pair: Pair) -> tuple[str, str, str]:
    return normalised(pair.anchor), normalised(pair.positive), normalised(pair.negative or "")


def form_of(example: object) -> str:
    """What examples like this one are called."""
    if isinstance(example, Example):
        return say("labelled texts")
    if isinstance(example, Scored):
        return say("scored pairs")
    return say("triplets") if isinstance(example, Pair) and example.negative is not None else say("pairs")


def _digest(examples: Sequence[Any]) -> str:
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(json.dumps(astuple(example)).encode("ascii") + b"\n")
    return hashed.hexdigest()
