"""Read the data of an embedding run (pairs, triplets or labelled texts), remove repeats and split without leakage."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any, TypeAlias

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example, labelled_examples
from tunedeck.data.pairs import Pair, ScoredPair, has_pairs, pair_columns, read_pairs
from tunedeck.data.pieces import is_large, table_pieces
from tunedeck.data.prepare import Steps, deduplicated, normalised, prepare, split, subset, without_overlap
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import Cells, Form, StoredExamples, read_filled, stored_examples
from tunedeck.data.stored_groups import divided, drawn, first_of_each, without_keys
from tunedeck.data.stored_labelled import stored_labelled
from tunedeck.data.table import Table, read_table
from tunedeck.tasks.base import Dataset

Examples: TypeAlias = Sequence[Pair] | Sequence[ScoredPair] | Sequence[Example]
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
    prepared = prepare(found, held_out, settings, steps)
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
    """Return the pairs, scored pairs or labelled texts of one source, on disk where they are many, and what a user
    should know of how it was read.
    """
    if is_large(reference):
        return _stored(reference, settings)
    table = read_table(reference, settings.encoding)
    if has_pairs(table, settings):
        return read_pairs(table, settings), table.notes
    return labelled_examples(table, settings.text, settings.label, drop_empty=settings.drop_empty), table.notes


def _stored(reference: str, settings: DataSettings) -> tuple[Examples, tuple[str, ...]]:
    if not has_pairs(next(table_pieces(reference, settings.encoding)), settings):
        labelled, _, notes = stored_labelled(reference, settings, multi_label=False, pairs=False)
        return labelled, notes

    def read(table: Table) -> Sequence[Any]:
        return read_pairs(table, settings)

    def reader(first: Table) -> Callable[[Table], Sequence[Any]]:
        filled = pair_columns(first, settings) if settings.drop_empty else ()
        return lambda piece: read_filled(piece, filled, read)

    pairs, first = stored_examples(reference, settings.encoding, _PAIRS, reader)
    return pairs, first.notes


def _cells_of(pair: Pair | ScoredPair) -> Cells:
    if isinstance(pair, ScoredPair):
        return pair.first, pair.second, None, repr(pair.score)
    return pair.anchor, pair.positive, pair.negative, None


def _of_cells(cells: Cells, labels: tuple[str, ...]) -> Pair | ScoredPair:
    first, second, negative, score = cells
    if score is not None:
        return ScoredPair(first or "", second or "", float(score))
    return Pair(first or "", second or "", negative)


_PAIRS: Form[Any] = Form(("first", "second", "negative", "score"), _cells_of, lambda pair: (), _of_cells)


def _steps_of_pairs(settings: DataSettings) -> Steps[Any]:
    """No anchor of the held-out pairs is an anchor in training, and no pair is there the other way round."""

    def hold_out(train: Sequence[Pair]) -> tuple[Sequence[Pair], Sequence[Any]]:
        if isinstance(train, StoredExamples):
            rest, held_out = divided(train, _anchor, settings.eval_fraction, settings.split_seed)
            return _without_pairs(rest, held_out), held_out
        anchors = sorted({normalised(pair.anchor) for pair in train})
        random.Random(settings.split_seed).shuffle(anchors)
        chosen = set(anchors[: min(len(anchors) - 1, max(1, round(len(anchors) * settings.eval_fraction)))])
        evaluation = [pair for pair in train if normalised(pair.anchor) in chosen]
        return _without_pairs(train, evaluation), evaluation

    return Steps(
        deduplicate=_deduplicated,
        hold_out=hold_out,
        remove_overlap=_without_pairs,
        subset=lambda found, size: fewer(found, size, settings.split_seed),
        digest=_digest,
    )


def _deduplicated(pairs: Sequence[Pair]) -> Sequence[Pair]:
    if isinstance(pairs, StoredExamples):
        return first_of_each(pairs, lambda pair: "\n".join(_key(pair)))
    return list({_key(pair): pair for pair in reversed(pairs)}.values())[::-1]


def _without_pairs(train: Sequence[Pair], evaluation: Sequence[Any]) -> Sequence[Pair]:
    if isinstance(train, StoredExamples):
        return _stored_without_pairs(train, evaluation)
    pairs = [pair for pair in evaluation if isinstance(pair, Pair)]
    taken = {normalised(pair.anchor) for pair in pairs}
    turned = {(normalised(pair.positive), normalised(pair.anchor)) for pair in pairs}
    return [p for p in train if normalised(p.anchor) not in taken and _key(p)[:2] not in turned]


def _stored_without_pairs(train: StoredExamples[Pair], evaluation: Sequence[Any]) -> Sequence[Pair]:
    if not len(evaluation) or not isinstance(evaluation[0], Pair):
        return train
    rest = without_keys(train, _anchor, map(_anchor, evaluation), len(evaluation))
    return without_keys(
        rest,
        lambda pair: "\n".join(_key(pair)[:2]),
        ("\n".join((normalised(pair.positive), normalised(pair.anchor))) for pair in evaluation),
        len(evaluation),
    )


def _anchor(pair: Pair) -> str:
    return normalised(pair.anchor)


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


def _with_partners(train: Sequence[Example], source: str) -> Sequence[Example]:
    counts = Counter(example.labels for example in train)
    train = drawn(train, [place for place, example in enumerate(train) if counts[example.labels] > 1])
    if sum(count > 1 for count in counts.values()) < 2:
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
    return drawn(examples, sorted(random.Random(seed).sample(range(len(examples)), size)))


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
