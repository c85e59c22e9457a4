"""TOML reading on every supported Python (tomllib came with 3.11)."""

from __future__ import annotations

import re
import sys
from typing import Any

from tunedeck.core.i18n import say

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)$")


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document; ValueError with line, column and cause in the user's language for what is none."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        cause, place = _cause(str(error)), _PLACE.search(str(error))
        if place is None:
            raise ValueError(say("at its end: {cause}", cause=cause)) from error
        raise ValueError(
            say("line {line}, column {column}: {cause}", line=place[1], column=place[2], cause=cause)
        ) from error
    return values


def _cause(text: str) -> str:
    """Return what is wrong, from the parser's English."""
    if text.startswith("Expected '=' after a key"):
        return say("an equals sign is missing after the key")
    if text.startswith("Invalid value"):
        return say("a value is missing, or a text has no double quotes")
    if text.startswith(("Unterminated string", "Illegal character", "Expected '\"'")):
        return say("a text is not closed by a quote")
    if text.startswith(("Expected ']", "Unclosed")):
        return say("a comma or a closing bracket is missing")
    if text.startswith(("Cannot ", "Duplicate")):
        return say("a key or a table is there twice")
    return say("check the brackets, the equals signs and the quotes")
