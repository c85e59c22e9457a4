"""Sentence templates in the notation of Home Assistant's intents, sampled randomly.

`(a|b)` is one of several, `[a]` may be left out, `(a;b)` is both in any order, `<rule>` another template and
`{list:slot}` a value of a list that fills a slot.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

T = TypeVar("T")
_TOKEN = re.compile(r"[()\[\]|;]|<[^>]+>|\{[^}]+\}|[^()\[\]|;<{]+")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several templates."""

    options: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class AnyOrder:
    """Several templates with spaces between them, in any order."""

    parts: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A template by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A value of a list, which fills a slot of this name."""

    values: str
    name: str


Template: TypeAlias = tuple["str | Choice | AnyOrder | Rule | Slot", ...]


@dataclass(slots=True)
class Sentence:
    """A text as it grows, with the places of its slots."""

    keeps_spaces: bool
    text: str = ""
    slots: list[dict[str, object]] = field(default_factory=list)
    """For each slot: `slot`, `value`, `start` and `end` in characters."""

    def add(self, text: str) -> None:
        """Append a text, with one space for several, or without spaces."""
        joined = re.sub(r"\s+", " " if self.keeps_spaces else "", self.text + text)
        self.text = joined.lstrip()


@dataclass(frozen=True, slots=True)
class Grammar:
    """The rules and lists that templates of one language name."""

    rules: Mapping[str, Template]
    lists: Mapping[str, Sequence[Template]]
    keeps_spaces: bool
    """Whether words are divided by spaces."""

    def draw(self, template: Template, source: random.Random) -> Sentence:
        """Draw one sentence; the same for the same state of `source` in every version of Python."""
        sentence = Sentence(self.keeps_spaces)
        self._write(template, sentence, source)
        sentence.text = sentence.text.rstrip()
        return sentence

    def _write(self, template: Template, sentence: Sentence, source: random.Random) -> None:
        for part in template:
            match part:
                case str():
                    sentence.add(part)
                case Choice(options):
                    self._write(_one_of(options, source), sentence, source)
                case AnyOrder(parts):
                    self._write_in_any_order(parts, sentence, source)
                case Rule(name):
                    self._write(self.rules[name], sentence, source)
                case Slot(values, name):
                    start = len(sentence.text)
                    self._write(_one_of(self.lists[values], source), sentence, source)
                    value = sentence.text[start:]
                    sentence.slots.append({"slot": name, "value": value, "start": start, "end": len(sentence.text)})

    def _write_in_any_order(self, parts: tuple[Template, ...], sentence: Sentence, source: random.Random) -> None:
        for part in sorted(parts, key=lambda part: source.random()):
            sentence.add(" ")
            self._write(part, sentence, source)
            sentence.add(" ")


def parse(text: str) -> Template:
    """Parse one template; its brackets are balanced."""
    tokens = _TOKEN.findall(text)
    template, used = _parse_group(tokens, 0)
    assert used == len(tokens), text
    return template


def _parse_group(tokens: Sequence[str], at: int) -> tuple[Template, int]:
    """Parse up to the bracket that closes a group, or to the end."""
    options: list[list[str | Choice | AnyOrder | Rule | Slot]] = [[]]
    divider = "|"
    while at < len(tokens) and tokens[at] not in ")]":
        token = tokens[at]
        at += 1
        if token in "|;":
            divider = token
            options.append([])
        elif token in "([":
            inside, at = _parse_group(tokens, at)
            options[-1].extend(inside if token == "(" else (Choice((inside, ())),))
            at += 1
        elif token.startswith("<"):
            options[-1].append(Rule(token[1:-1]))
        elif token.startswith("{"):
            values, _, name = token[1:-1].partition(":")
            options[-1].append(Slot(values, name or values))
        else:
            options[-1].append(token)
    parts = tuple(tuple(option) for option in options)
    if len(parts) == 1:
        return parts[0], at
    return (AnyOrder(parts) if divider == ";" else Choice(parts),), at


def _one_of(options: Sequence[T], source: random.Random) -> T:
    """Choose by `random()`, the only method whose sequence Python promises to keep."""
    return options[int(source.random() * len(options))]
