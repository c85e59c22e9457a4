"""Words of a text, windows over its tokens, and entities from tags.

It needs the standard library alone, for the runner of an ONNX export carries a copy of this file.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

OUTSIDE = "O"
_PREFIXES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
"""The places in an entity: begin, inside, end, single; and their names in BILOU, BMES and BMEWO."""
_OVERLAP = 4
"""Neighbouring windows share one part in this many of their tokens."""


class Word(NamedTuple):
    """A stretch of text that has one tag, which the token at `piece` decides; `start` and `end` are code points."""

    piece: int
    start: int
    end: int


class Window(NamedTuple):
    """The tokens from `start` to `end`, which a model reads together; it decides those from `first` to `last`."""

    start: int
    end: int
    first: int
    last: int


class EncodedText(list[int]):
    """The token ids of all windows of a text, one after another, and the words that they decide.

    `rows` are the ids of each window with its special tokens; `front` of them precede the text's tokens.
    """

    def __init__(
        self, text: str, words: Sequence[Word], windows: Sequence[Window], rows: list[list[int]], front: int
    ) -> None:
        super().__init__(token for row in rows for token in row)
        self.text, self.words, self.windows, self.rows, self.front = text, words, windows, rows, front

    def decided(self, row: int) -> tuple[list[int], list[int]]:
        """Return the numbers of the words that a window decides, and the position of each in the window."""
        window = self.windows[row]
        pieces = [word.piece for word in self.words]
        numbers = list(range(bisect_left(pieces, window.first), bisect_left(pieces, window.last)))
        return numbers, [self.front + pieces[number] - window.start for number in numbers]


class Run(NamedTuple):
    """An entity as a run of words, from `first` to `last` (exclusive)."""

    first: int
    last: int
    label: str


def is_spaceless(character: str) -> bool:
    """Whether a character belongs to a script without spaces between its words: Chinese, Japanese, Thai and others."""
    if unicodedata.east_asian_width(character) in "WF":
        return not unicodedata.name(character, "").startswith("HANGUL")
    return "\u0e00" <= character <= "\u0eff" or "\u1000" <= character <= "\u109f" or "\u1780" <= character <= "\u17ff"


def words_of(text: str, offsets: Sequence[tuple[int, int]], subwords: str) -> list[Word]:
    """Return the words of a text from the places of its tokens, in code points.

    With `subwords` "first" a word is a run of letters and digits of a script with spaces, and each token elsewhere;
    with "all" every token is a word. Tokens that share a character are always one word.
    """
    found: list[Word] = []
    for piece, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start == end:
            continue
        last = found[-1] if found else None
        if last is not None and (start < last.end or (subwords == "first" and _is_inside(text, last.end, start))):
            found[-1] = Word(last.piece, last.start, max(last.end, end))
        else:
            found.append(Word(piece, start, end))
    return found


def _is_inside(text: str, end: int, start: int) -> bool:
    """Whether a word continues from one token to the next."""
    return end == start and _is_letter(text[start - 1]) and _is_letter(text[start])


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" and not is_spaceless(character)


def windows_of(count: int, room: int) -> list[Window]:
    """Return windows of `room` tokens over `count` of them, none where there is no token.

    Each token is decided by the window in which it is farther from a border that cuts its context off.
    """
    if count <= room:
        return [Window(0, count, 0, count)] if count else []
    starts = [*range(0, count - room, room - room // _OVERLAP), count - room]
    borders = [(right + left + room) // 2 for left, right in pairwise(starts)]
    decided = zip([0, *borders], [*borders, count], strict=True)
    return [Window(start, start + room, first, last) for start, (first, last) in zip(starts, decided, strict=True)]


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer of the tokenizers library puts before and after a text."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.post_process(plain)
    start = whole.special_tokens_mask.index(0)
    return whole.ids[:start], whole.ids[start + len(plain.ids) :]


def encoded_text(
    text: str, encoding: Any, special: tuple[list[int], list[int]], max_length: int, subwords: str
) -> EncodedText:
    """Return a text in windows of at most `max_length` tokens, from its encoding without special tokens.

    A text without words has no window. Raises ValueError where no token of text would be left.
    """
    front, back = special
    room = max_length - len(front) - len(back)
    if room < 1:
        raise ValueError(max_length)
    words = words_of(text, encoding.offsets, subwords)
    windows = windows_of(len(encoding.ids), room) if words else []
    rows = [[*front, *encoding.ids[window.start : window.end], *back] for window in windows]
    return EncodedText(text, words, windows, rows, len(front))


def split_tag(tag: str) -> tuple[str, str]:
    """Return the place in an entity, "B", "I", "E", "S" or "O", and the entity's label; a bare label is inside."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if len(tag) > 2 and tag[1] in "-_" and tag[0] in _PREFIXES:
        return _PREFIXES[tag[0]], tag[2:]
    return "I", tag


def runs_of(tags: Iterable[str]) -> list[Run]:
    """Return the entities that tags mean, in IOB1, IOB2, IOBES and its relatives alike, as conlleval and seqeval do."""
    found: list[Run] = []
    before = (OUTSIDE, "")
    for place, (prefix, label) in enumerate(map(split_tag, tags)):
        if prefix != OUTSIDE:
            goes_on = prefix in "IE" and before[0] in "BI" and before[1] == label
            if goes_on:
                found[-1] = found[-1]._replace(last=place + 1)
            else:
                found.append(Run(place, place + 1, label))
        before = (prefix, label)
    return found


def tags_of(words: Sequence[Word], spans: Iterable[tuple[int, int, str]]) -> tuple[list[str], int]:
    """Return the tags (IOB2) of words for spans (start, end, label), and how many spans are not made of whole words.

    Such a span takes the words that it touches, none where an earlier one has them.
    """
    tags, uneven = [OUTSIDE] * len(words), 0
    starts, ends = [word.start for word in words], [word.end for word in words]
    for start, end, label in spans:
        touched = range(bisect_right(ends, start), bisect_left(starts, end))
        free = [place for place in touched if tags[place] == OUTSIDE]
        uneven += not free or (words[free[0]].start, words[free[-1]].end) != (start, end)
        for place in free:
            tags[place] = f"{'B' if place == free[0] else 'I'}-{label}"
    return tags, uneven
