"""Texts that belong together: pairs and triplets to train on, pairs with a score to compare with."""

from __future__ import annotations

from dataclasses import dataclass

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.data.columns import column_texts, named_column, number_of, row_numbers, usual_columns
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import Table
from tunedeck.data.usual_names import (
    ANCHOR_COLUMNS,
    LABEL_COLUMNS,
    NEGATIVE_COLUMNS,
    POSITIVE_COLUMNS,
    SCORE_COLUMNS,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A text, one that belongs to it, and perhaps one that does not."""

    anchor: str
    positive: str
    negative: str | None = None


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and how alike people found them; any scale on which more is more alike."""

    first: str
    second: str
    score: float


def has_pairs(table: Table, settings: DataSettings) -> bool:
    """Tell whether the columns, named or usual, are those of pairs; labelled texts otherwise."""
    if settings.anchor is not None or settings.positive is not None:
        return True
    return bool(usual_columns(table, ANCHOR_COLUMNS) and usual_columns(table, POSITIVE_COLUMNS))


def read_pairs(table: Table, settings: DataSettings) -> list[Pair] | list[ScoredPair]:
    """Return pairs or triplets; scored pairs where the table has a score. Named columns win over usual names.

    Raises DataError for columns, texts or scores that cannot be used.
    """
    anchor, positive = pair_columns(table, settings)
    score = _optional(table, settings.score, SCORE_COLUMNS)
    negative = _optional(table, settings.negative, NEGATIVE_COLUMNS)
    if score is None and settings.anchor is None:
        _refuse_labels(table, anchor, positive)
    anchors, positives = column_texts(table, anchor), column_texts(table, positive)
    kept = _filled(table, anchors, positives, settings.drop_empty)
    if score is not None:
        return [ScoredPair(anchors[n], positives[n], number_of(table, score, n)) for n in kept]
    negatives = column_texts(table, negative) if negative is not None else [""] * len(anchors)
    return [Pair(anchors[n], positives[n], negatives[n] if negatives[n].strip() else None) for n in kept]


def pair_columns(table: Table, settings: DataSettings) -> tuple[str, str]:
    """Return the columns of the two texts of a pair, the named or the usual ones; DataError where there are none."""
    return (
        _column(table, settings.anchor, ANCHOR_COLUMNS, "anchor"),
        _column(table, settings.positive, POSITIVE_COLUMNS, "positive"),
    )


def _column(table: Table, name: str | None, usual: tuple[str, ...], role: str) -> str:
    if name is not None:
        return named_column(table, name)
    found = usual_columns(table, usual)
    if len(found) == 1:
        return found[0]
    raise DataError(
        say(
            "{source}: which column holds the {role}? There are: {columns}; name it with --{role}",
            source=table.source,
            role=role,
            columns=listing(table.columns),
        )
    )


def _optional(table: Table, name: str | None, usual: tuple[str, ...]) -> str | None:
    return named_column(table, name) if name is not None else next(iter(usual_columns(table, usual)), None)


def _refuse_labels(table: Table, anchor: str, positive: str) -> None:
    """A label next to two sentences usually says whether they belong together at all."""
    labels = usual_columns(table, LABEL_COLUMNS)
    if labels:
        raise DataError(
            say(
                "{source} has pairs and a column {label!r}: keep only the rows whose texts belong together, "
                "then pass --anchor {anchor} --positive {positive}",
                source=table.source,
                label=labels[0],
                anchor=anchor,
                positive=positive,
            )
        )


def _filled(table: Table, anchors: list[str], positives: list[str], drop_empty: bool) -> list[int]:
    rows = range(len(anchors))
    empty = [n for n in rows if not anchors[n].strip() or not positives[n].strip()]
    if empty and not drop_empty:
        raise DataError(
            say(
                "{source}: pairs with an empty text: {count} ({rows}); fill them in, or pass --drop-empty",
                source=table.source,
                count=len(empty),
                rows=row_numbers(empty),
            )
        )
    if len(empty) == len(anchors):
        raise DataError(say("{source}: every pair has an empty text", source=table.source))
    left_out = set(empty)
    return [n for n in rows if n not in left_out]
