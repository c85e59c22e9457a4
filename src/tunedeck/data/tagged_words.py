"""Texts with entities out of words and their tags: lists of words, and files with a word and its tags to a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.tagging import OUTSIDE, is_spaceless, runs_of, split_tag
from tunedeck.data.rows import Content, Rows

Scheme: TypeAlias = Literal["IOB1", "IOB2", "IOBES", "IOB"]
"""How tags mark where an entity begins: IOB is a mixture of the first two."""
_SINGLE_CHARACTERS = 0.9
"""The share of words of one character from which a file has a character, not a word, to a line."""


class TaggedWords(NamedTuple):
    """The words of one text and their tags; `place` says where they are in the source."""

    place: str
    words: list[str]
    tags: list[str]


def read_word_lines(path: Path, text: str) -> Content:
    """Read the CoNLL form: a word, perhaps other columns and a tag in each line, a blank line after each text.

    Gives the columns `text` and `entities`. DataError names the line that cannot be read.
    """
    found = [TaggedWords("", [], [])]
    for number, line in enumerate(text.split("\n"), start=1):
        values = _values(line)
        if not values or line.startswith("-DOCSTART-"):
            found += [TaggedWords("", [], [])] if found[-1].words else []
        elif len(values) > 1 and is_tag(values[-1]):
            if not found[-1].words:
                found[-1] = TaggedWords(say("line {line}", line=number), [], [])
            found[-1].words.append(values[0])
            found[-1].tags.append(values[-1])
        elif not line.startswith("#"):
            raise DataError(
                say(
                    "{path}, line {line}: expected a word and its tag, such as B-PER, I-PER or O, with a space or a "
                    "tab between them, found {found!r}",
                    path=path,
                    line=number,
                    found=line.strip()[:60],
                )
            )
    return texts_of(str(path), [one for one in found if one.words])


def texts_of(source: str, found: Sequence[TaggedWords]) -> Content:
    """Return texts with their entities as rows; the notes say how the tags were read."""
    by_character = is_by_character(word for one in found for word in one.words)
    rows: Rows = []
    for one in found:
        text, offsets = join_words(one.words, by_character)
        entities = [
            {"start": offsets[run.first][0], "end": offsets[run.last - 1][1], "label": run.label}
            for run in runs_of(one.tags)
        ]
        rows.append({"text": text, "entities": entities})
    scheme = scheme_of([one.tags for one in found])
    note = say("{source}: {count} texts, tagged in {scheme}", source=source, count=len(rows), scheme=scheme)
    if scheme == "IOB":
        note = say(
            "{source}: {count} texts; some entities begin with B-, some with I- after O: both are taken for beginnings",
            source=source,
            count=len(rows),
        )
    return Content(("text", "entities"), rows, (note,))


def is_tag(value: str) -> bool:
    """Whether a value is O or has the prefix of a place in an entity."""
    return value == OUTSIDE or split_tag(value) != ("I", value)


def scheme_of(texts: Iterable[Sequence[str]]) -> Scheme:
    """Tell the scheme of tags by what begins an entity and what ends it."""
    always, bare, ended = False, False, False
    for tags in texts:
        before = (OUTSIDE, "")
        for tag in map(split_tag, tags):
            starts = before[0] == OUTSIDE or before[1] != tag[1]
            always |= tag[0] == "B" and starts
            bare |= tag[0] == "I" and starts
            ended |= tag[0] in "ES"
            before = tag
    if ended:
        return "IOBES"
    if bare:
        return "IOB" if always else "IOB1"
    return "IOB2"


def is_by_character(words: Iterable[str]) -> bool:
    """Whether nearly all words are single characters, most of them of a script without spaces."""
    lengths = [(len(word) == 1, len(word) == 1 and is_spaceless(word)) for word in words]
    single, spaceless = (sum(kind) for kind in zip(*lengths, strict=True)) if lengths else (0, 0)
    return single > _SINGLE_CHARACTERS * len(lengths) and spaceless > len(lengths) / 2


def join_words(words: Sequence[str], by_character: bool) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of words and the place of each: with a space between two words of scripts that have spaces."""
    text, offsets = "", []
    for word in words:
        apart = text and word and not by_character and not is_spaceless(text[-1]) and not is_spaceless(word[0])
        text += " " if apart else ""
        offsets.append((len(text), len(text) + len(word)))
        text += word
    return text, offsets


def _values(line: str) -> list[str]:
    """Return the columns of a line; a full-width space is a word."""
    line = line.strip(" \t\r")
    return (line.split("\t") if "\t" in line else re.split(" +", line)) if line else []
