"""The examples of a tagging run: read, deduplicated, split, checked."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.tagging import OUTSIDE, split_tag
from tunedeck.data.columns import shorten
from tunedeck.data.pieces import is_large
from tunedeck.data.prepare import Prepared, Steps, deduplicated, prepare, split, subset, without_overlap
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import Cells, Form, stored_examples
from tunedeck.data.table import Table, read_table
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.tag.reading import Span, Tagged, TaggedText, tagged_texts

_SHOWN_KINDS = 8


def read_tagged(settings: DataSettings, labels: tuple[str, ...] | None) -> Dataset[TaggedText]:
    """Read and split a run's data; DataError for files, columns, entities or tags that are not usable."""
    examples, text_column, notes = read_examples(settings, settings.train)
    held_out = None
    if settings.eval is not None:
        held_out, _, more = read_examples(settings, settings.eval)
        notes = (*notes, *more)
    known = tags_for(examples) if labels is None else labels
    check_entities(examples, known)
    check_entities(held_out or (), known)
    steps: Steps[TaggedText] = Steps(
        deduplicate=deduplicated,
        hold_out=lambda found: split(found, settings.eval_fraction, settings.split_seed),
        remove_overlap=without_overlap,
        subset=lambda found, size: subset(found, size, settings.split_seed),
        digest=_digest,
    )
    prepared = prepare(examples, held_out, settings, steps)
    counts = Counter(span.label for example in prepared.train for span in example.spans)
    if not counts:
        raise DataError(
            say("{source}: there is no entity in the texts to train on; check the column", source=settings.train)
        )
    return Dataset(
        settings.train,
        prepared.train,
        prepared.evaluation,
        prepared.sha256,
        _described(settings.train, prepared, counts),
        known,
        text_column=text_column,
        notes=notes,
    )


def _described(source: str, prepared: Prepared[TaggedText], counts: Counter[str]) -> str:
    """Return sizes and the most frequent kinds of entities in a line."""
    shown = [f"{kind} {count:,}" for kind, count in counts.most_common(_SHOWN_KINDS)]
    if len(counts) > _SHOWN_KINDS:
        shown.append(say("{count} more kinds", count=len(counts) - _SHOWN_KINDS))
    return say(
        "{source}: {train} texts to train on, {held_out} held out, {removed} repeats left out; entities: {entities}",
        source=source,
        train=len(prepared.train),
        held_out=len(prepared.evaluation),
        removed=prepared.left_out,
        entities=listing(shown),
    )


def read_examples(settings: DataSettings, reference: str) -> Tagged:
    """Read the tagged texts of one file or name, to disk where they are many."""

    def read(table: Table) -> Tagged:
        return tagged_texts(table, settings.text, settings.label, drop_empty=settings.drop_empty)

    if not is_large(reference):
        return read(read_table(reference, settings.encoding))
    examples, first = stored_examples(
        reference, settings.encoding, _TAGGED, lambda first: lambda piece: read(piece).examples
    )
    return read(first)._replace(examples=examples)


def _of_cells(cells: Cells, labels: tuple[str, ...]) -> TaggedText:
    text, spans = cells
    return TaggedText(text or "", tuple(Span(*one) for one in json.loads(spans or "[]")))


_TAGGED: Form[TaggedText] = Form(
    columns=("text", "spans"),
    cells=lambda example: (example.text, json.dumps(example.spans)),
    labels=lambda example: example.labels,
    example=_of_cells,
)


def tags_for(examples: Iterable[TaggedText]) -> tuple[str, ...]:
    """Return O and the tags B- and I- of every kind of entity in the examples, in order."""
    kinds = sorted({span.label for example in examples for span in example.spans})
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))


def check_entities(examples: Iterable[TaggedText], tags: Sequence[str]) -> None:
    """Raise DataError where an entity is of a kind that no tag names."""
    known = tuple(dict.fromkeys(kind for _, kind in map(split_tag, tags) if kind))
    for example in examples:
        for span in example.spans:
            if span.label not in known:
                raise DataError(
                    say(
                        "the entity {entity!r} in {text!r} has the unknown label {label!r}",
                        entity=shorten(example.text[span.start : span.end]),
                        text=shorten(example.text, 60),
                        label=span.label,
                    )
                    + nearest(span.label, known)
                    + say("; known: {known}", known=listing(known))
                )


def _digest(examples: Iterable[TaggedText]) -> str:
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(json.dumps([example.text, example.spans]).encode("ascii") + b"\n")
    return hashed.hexdigest()
