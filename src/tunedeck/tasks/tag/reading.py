"""Texts and their entities out of the rows of a table: spans, lists of words with tags, exports of labelling tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.columns import column_texts, named_column, shorten, shown_columns, usual_columns
from tunedeck.data.labelled import empty_texts, text_column_of
from tunedeck.data.rows import Content, Rows
from tunedeck.data.table import Table
from tunedeck.data.tagged_words import TaggedWords, is_tag, texts_of

WORD_COLUMNS = ("tokens", "words", "词", "字")
TAG_COLUMNS = ("ner_tags", "tags", "bio_tags", "ner", "labels", "label", "标签")
SPAN_COLUMNS = ("entities", "spans", "slots", "ner", "labels", "label", "实体", "槽位", "标签")
_LABEL_KEYS = ("label", "labels", "entity_group", "entity", "type", "slot", "tag")
_START_KEYS, _END_KEYS = ("start", "start_offset", "begin"), ("end", "end_offset")


class Span(NamedTuple):
    """An entity in a text, from `start` to `end` (exclusive) in code points."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class TaggedText:
    """A text and its entities, in order and without overlap."""

    text: str
    spans: tuple[Span, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The kinds of entities in the text, each once and in order."""
        return tuple(sorted({span.label for span in self.spans}))


class Tagged(NamedTuple):
    """The examples of a table, the column of their texts, and what a user should know of how they were read."""

    examples: Sequence[TaggedText]
    text_column: str
    notes: tuple[str, ...]


def tagged_texts(table: Table, text: str | None, label: str | None, drop_empty: bool = False) -> Tagged:
    """Read texts with entities from the named columns, or from the usual ones where a name is None.

    A row holds a text and a list of spans ({"start", "end", "label"} or [start, end, label]), a list of words and one
    of tags, or a task as Label Studio exports it. Raises DataError for columns, spans and tags that cannot be used.
    """
    notes = table.notes
    if {"data", "annotations"} <= set(table.columns):
        table, text, label = _from_label_studio(table, text), "text", "entities"
    elif (words := _words_column(table, text)) is not None:
        content = _from_words(table, words, _column(table, label, TAG_COLUMNS, say("the tags")))
        table, text, label = Table(table.source, *content), "text", "entities"
        notes = (*notes, *content.notes)
    span_column = _column(table, label, SPAN_COLUMNS, say("the entities"))
    text_column = text_column_of(table, text, span_column)
    texts = column_texts(table, text_column)
    empty = empty_texts(table, text_column, texts, drop_empty)
    examples = [
        TaggedText(one, _spans(table, number, one, row[span_column]))
        for number, (one, row) in enumerate(zip(texts, table.rows, strict=True))
        if number not in empty
    ]
    return Tagged(examples, text_column, notes)


def _column(table: Table, name: str | None, usual: tuple[str, ...], what: str) -> str:
    if name is not None:
        return named_column(table, name)
    for one in usual:
        found = usual_columns(table, (one,))
        if found:
            return found[0]
    raise DataError(
        say(
            "{source}: which column holds {what}? There are: {columns}; name it with --label",
            source=table.source,
            what=what,
            columns=shown_columns(table),
        )
    )


def _words_column(table: Table, name: str | None) -> str | None:
    """Return the column whose cells are lists of words, None where there is none."""
    found = [named_column(table, name)] if name is not None else usual_columns(table, WORD_COLUMNS)
    lists = [column for column in found if isinstance(_listed(table.rows[0][column]), list)]
    return lists[0] if lists else None


def _from_words(table: Table, word_column: str, tag_column: str) -> Content:
    found = []
    for number, row in enumerate(table.rows, start=1):
        words, tags = _listed(row[word_column]), _listed(row[tag_column])
        if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
            raise _wrong(
                table,
                number,
                say(
                    "the columns {words!r} and {tags!r} have to hold lists of the same length",
                    words=word_column,
                    tags=tag_column,
                ),
            )
        for tag in tags:
            if not isinstance(tag, str) or not is_tag(tag):
                raise _wrong(
                    table, number, say("unknown tag {tag!r}; tags are O, or B-, I-, E- or S- and a label", tag=tag)
                )
        found.append(TaggedWords(str(number), [str(word) for word in words], tags))
    return texts_of(table.source, found)


def _from_label_studio(table: Table, name: str | None) -> Table:
    """The tasks of a Label Studio export, each with its first annotation that was not cancelled."""
    rows: Rows = []
    for number, row in enumerate(table.rows, start=1):
        data, annotations = row["data"], row["annotations"]
        if not isinstance(data, Mapping) or not isinstance(annotations, list):
            raise _wrong(table, number, say("this is not a task as Label Studio exports it"))
        texts = {key: value for key, value in data.items() if isinstance(value, str)}
        key = name or ("text" if "text" in texts else next(iter(texts), "text"))
        kept = [one for one in annotations if isinstance(one, Mapping) and not one.get("was_cancelled")]
        results = kept[0].get("result", []) if kept else []
        values = [one["value"] for one in results if isinstance(one, Mapping) and "labels" in one.get("value", {})]
        rows.append({"text": texts.get(key, ""), "entities": values})
    return Table(table.source, ("text", "entities"), rows)


def _listed(cell: object) -> Any:
    """Return a cell as it is, or the list that its text is in JSON."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def _spans(table: Table, number: int, text: str, cell: object) -> tuple[Span, ...]:
    """Return the entities of a row, in order."""
    cell = _listed(cell)
    if cell is None or cell == "":
        return ()
    if not isinstance(cell, list):
        raise _wrong(
            table,
            number + 1,
            say('the entities are {kind}, not a list of {{"start", "end", "label"}}', kind=type(cell).__name__),
        )
    spans = sorted(_span(table, number + 1, text, one) for one in cell)
    for left, right in pairwise(spans):
        if right.start < left.end:
            raise _wrong(
                table,
                number + 1,
                say(
                    "the entities {left} and {right} overlap; keep one of them",
                    left=_shown(text, left),
                    right=_shown(text, right),
                ),
            )
    return tuple(spans)


def _offsets(table: Table, number: int, text: str, value: object) -> tuple[int, int, str]:
    """Return start, end and label of an entity; offsets that count UTF-16, as JavaScript's do, are converted where the
    entity quotes its text.
    """
    start, end, label, quoted = _parts(value)
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(label, str) or not label.strip():
        raise _wrong(
            table,
            number,
            say(
                'cannot read the entity {value}; write {{"start": 0, "end": 5, "label": "PER"}} or [0, 5, "PER"]',
                value=shorten(str(value), 80),
            ),
        )
    if isinstance(quoted, str) and text[max(0, start) : max(0, end)] != quoted:
        start, end = _from_utf16(text, start), _from_utf16(text, end)
        if text[max(0, start) : max(0, end)] != quoted:
            raise _wrong(
                table,
                number,
                say(
                    "the entity {value} is not at its place: the text there is {found!r}; offsets count characters "
                    "from 0, and the end is the place after the last one",
                    value=shorten(str(value), 80),
                    found=shorten(text[max(0, start) : max(0, end)]),
                ),
            )
    return start, end, label


def _span(table: Table, number: int, text: str, value: object) -> Span:
    """Return one entity, without the spaces around it."""
    start, end, label = _offsets(table, number, text, value)
    if not 0 <= start < end <= len(text):
        raise _wrong(
            table,
            number,
            say(
                "the entity {label} from {start} to {end} is outside of the text, which has {length} characters",
                label=label,
                start=start,
                end=end,
                length=len(text),
            ),
        )
    inside = text[start:end]
    start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
    if start >= end:
        raise _wrong(
            table, number, say("the entity {label} at {start} holds nothing but spaces", label=label, start=end)
        )
    return Span(start, end, label.strip())


def _parts(value: object) -> tuple[Any, Any, Any, Any]:
    """Start, end, label and, where it is given, the entity's text."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        return (*value, None)
    if not isinstance(value, Mapping):
        return None, None, None, None
    start, end, label = (
        next((value[key] for key in keys if value.get(key) is not None), None)
        for keys in (_START_KEYS, _END_KEYS, _LABEL_KEYS)
    )
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    return start, end, label, value.get("text")


def _from_utf16(text: str, offset: int) -> int:
    """Return an offset in UTF-16, as browsers count, in code points."""
    return len(text.encode("utf-16-le")[: 2 * max(0, offset)].decode("utf-16-le", "ignore"))


def _shown(text: str, span: Span) -> str:
    return f"{shorten(text[span.start : span.end])!r} ({span.label}, {span.start}-{span.end})"


def _wrong(table: Table, number: int, reason: str) -> DataError:
    return DataError(say("{source}, row {row}: {reason}", source=table.source, row=number, reason=reason))
