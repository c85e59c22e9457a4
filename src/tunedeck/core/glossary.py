"""The glossary: the terms of the field and the codes of errors, each explained in English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tunedeck.core.i18n import language
from tunedeck.core.toml import parse_toml


@dataclass(frozen=True, slots=True)
class Term:
    """A term in both languages, other words for it, and the terms to read next."""

    name: str
    zh: str
    en_text: str
    zh_text: str
    aliases: tuple[str, ...] = ()
    see: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the explanation in the user's language."""
        return self.zh_text if language() == "zh" else self.en_text

    @property
    def words(self) -> tuple[str, ...]:
        """Return every word that finds the term, in lower case."""
        return tuple(word.lower() for word in (self.name, self.zh, *self.aliases))


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A code of errors with what it means, what usually causes it and what helps."""

    code: str
    en_text: str
    zh_text: str

    @property
    def text(self) -> str:
        """Return the explanation in the user's language."""
        return self.zh_text if language() == "zh" else self.en_text


@cache
def terms() -> tuple[Term, ...]:
    """Return every term, in the order of the file."""
    return tuple(
        Term(**{**entry, "aliases": tuple(entry.get("aliases", ())), "see": tuple(entry.get("see", ()))})
        for entry in _tables()["term"]
    )


@cache
def error_codes() -> tuple[ErrorCode, ...]:
    """Return every error code, in order."""
    return tuple(ErrorCode(**entry) for entry in _tables()["error"])


@cache
def _tables() -> dict[str, Any]:
    return parse_toml(files("tunedeck.core").joinpath("glossary.toml").read_text(encoding="utf-8"))
