"""Find problems in labelled texts, one finding for each kind of problem."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunedeck.core.i18n import listing, say
from tunedeck.data.check.near_copies import near_copies
from tunedeck.data.check.personal import personal_data
from tunedeck.data.columns import shorten
from tunedeck.data.prepare import normalised

SHOWN = 3
"""Examples of a finding."""
FEW = 10
"""Rows of a class, of which no held-out tenth is left below."""
IMBALANCE = 10
_SHOWN_CHARACTERS = 80
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_TAG = re.compile(r"<[/!]?[A-Za-z][^<>]{0,500}>|&(?:[a-z]{2,8}|#\d{1,6});")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row as it is checked: its number in the file, counted from 1, its text, and its label, "" without one."""

    number: int
    text: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault: how many rows have it, a sentence for people, and some rows that show it."""

    kind: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


def quick_findings(rows: Sequence[CheckedRow], held_out: Sequence[CheckedRow] | None = None) -> Iterator[Finding]:
    """Yield the findings of one pass over the texts, the worst first; training prints them too."""
    first = _first_of_each(rows)
    yield from _conflicts(rows)
    if held_out is not None:
        yield from _overlap(first, held_out)
    yield from _classes(rows)
    yield from _contentless(rows)
    yield from _personal(rows)


def near_findings(rows: Sequence[CheckedRow], held_out: Sequence[CheckedRow] | None = None) -> Iterator[Finding]:
    """Yield repeats, near copies, and near copies of training texts among the held-out ones."""
    first = _first_of_each(rows)
    repeats = len(rows) - len(first)
    if repeats:
        counts = Counter(normalised(row.text) for row in rows)
        most = [f"{count} ×: {_shown(first[text])}" for text, count in counts.most_common(SHOWN) if count > 1]
        yield Finding("repeats", repeats, say("repeats of an earlier text: {count}", count=repeats), tuple(most))
    keys = list(first)
    pairs = near_copies(keys)
    if pairs:
        other = sum(first[keys[a]].label != first[keys[b]].label for a, b in pairs)
        text = say(
            "near copies of another text: {count}, with another label: {other}",
            count=len(pairs),
            other=other,
        )
        yield Finding(
            "near_copies", len(pairs), text, _shown_pairs([(first[keys[a]], first[keys[b]]) for a, b in pairs])
        )
    if held_out is not None:
        tested = [row for text, row in _first_of_each(held_out).items() if text not in first]
        together = [*keys, *(normalised(row.text) for row in tested)]
        crossing = [(a, b) for a, b in near_copies(together) if a < len(keys) <= b]
        if crossing:
            text = say("test texts that are near copies of a training text: {count}", count=len(crossing))
            shown = _shown_pairs([(first[keys[a]], tested[b - len(keys)]) for a, b in crossing])
            yield Finding("near_overlap", len(crossing), text, shown)


def _first_of_each(rows: Sequence[CheckedRow]) -> dict[str, CheckedRow]:
    first: dict[str, CheckedRow] = {}
    for row in rows:
        first.setdefault(normalised(row.text), row)
    return first


def _conflicts(rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    groups: dict[str, list[CheckedRow]] = defaultdict(list)
    for row in rows:
        groups[normalised(row.text)].append(row)
    torn = [group for group in groups.values() if len({row.label for row in group}) > 1]
    if torn:
        shown = [f"{_shown(group[0])} ({listing(dict.fromkeys(row.label for row in group))})" for group in torn[:SHOWN]]
        text = say("texts with different labels: {count}", count=len(torn))
        yield Finding("conflicts", len(torn), text, tuple(shown))


def _overlap(first: dict[str, CheckedRow], held_out: Sequence[CheckedRow]) -> Iterator[Finding]:
    both = [row for row in held_out if normalised(row.text) in first]
    if both:
        text = say("test texts that are in the training data too: {count} of {all}", count=len(both), all=len(held_out))
        yield Finding("overlap", len(both), text, tuple(_shown(row) for row in both[:SHOWN]))


def _classes(rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    counts = Counter(row.label for row in rows if row.label)
    if len(counts) < 2:
        return
    few = [f"{label} ({count})" for label, count in counts.most_common() if count < FEW]
    if few:
        text = say("classes with fewer than {few} rows: {names}", few=FEW, names=_some(few))
        yield Finding("small_classes", len(few), text, tuple(few[:SHOWN]))
    (most, many), (least, little) = counts.most_common()[0], counts.most_common()[-1]
    if many >= IMBALANCE * little:
        text = say(
            "the classes are uneven: {most} has {many} rows, {least} {little}; accuracy says little about the small "
            "ones",
            most=most,
            many=many,
            least=least,
            little=little,
        )
        yield Finding("imbalance", many // little, text)


def _contentless(rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    kinds: dict[str, list[CheckedRow]] = defaultdict(list)
    for row in rows:
        kind = _only(row.text)
        if kind:
            kinds[kind].append(row)
    names = {
        "links": say("texts that are only links"),
        "html": say("texts that are only HTML"),
        "numbers": say("texts without a letter, only numbers or signs"),
    }
    for kind, found in kinds.items():
        yield Finding(kind, len(found), f"{names[kind]}: {len(found)}", tuple(_shown(row) for row in found[:SHOWN]))


def _only(text: str) -> str:
    """Return the content of a text without words: links, html or numbers."""
    if not _LETTER.search(text):
        return "numbers"
    without = _LINK.sub(" ", text) if "http" in text or "www." in text else text
    if not _LETTER.search(without):
        return "links"
    if ("<" in text or "&" in text) and not _LETTER.search(_TAG.sub(" ", without)):
        return "html"
    return ""


def _personal(rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = defaultdict(list)
    holding = 0
    for row in rows:
        found = list(personal_data(row.text))
        holding += bool(found)
        for one in found:
            kinds[one.kind].append(say("row {row}: {text}", row=row.number, text=one.masked))
    if kinds:
        names = {
            "e-mail": say("e-mail addresses"),
            "phone number": say("phone numbers"),
            "identity number": say("identity numbers"),
        }
        counted = listing(f"{names[kind]} {len(found)}" for kind, found in kinds.items())
        text = say("personal data that a model may learn by heart: {counted}", counted=counted)
        yield Finding("personal", holding, text, tuple(one for found in kinds.values() for one in found[:SHOWN]))


def _some(names: Sequence[str], most: int = 8) -> str:
    return listing(names[:most]) + (", …" if len(names) > most else "")


def _shown(row: CheckedRow) -> str:
    return say("row {row}: {text}", row=row.number, text=shorten(row.text, _SHOWN_CHARACTERS))


def _shown_pairs(pairs: Sequence[tuple[CheckedRow, CheckedRow]]) -> tuple[str, ...]:
    return tuple(f"{_shown(one)} ≈ {_shown(other)}" for one, other in pairs[:SHOWN])
