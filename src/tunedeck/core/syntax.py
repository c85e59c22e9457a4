"""Why JSON or YAML cannot be read, and where, in the user's language; the parsers' reasons are English only."""

from __future__ import annotations

import json

import yaml

from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason


def json_reason(error: Exception) -> str:
    """Return line, column and cause of what `json.loads` raised; a ValueError of ours keeps its text."""
    if not isinstance(error, json.JSONDecodeError):
        return json_cause(error)
    return say("line {line}, {cause}", line=error.lineno, cause=json_cause(error))


def json_cause(error: Exception) -> str:
    """Return column and cause of what `json.loads` raised, without the line."""
    if isinstance(error, RecursionError):
        return say("its lists or objects are nested too deeply")
    if "integer string conversion" in str(error):
        return say("a number has more than 4,300 digits")
    if not isinstance(error, json.JSONDecodeError):
        return system_reason(error)
    return say("column {column}: {cause}", column=error.colno, cause=_json_cause(error.msg))


def yaml_reason(error: yaml.YAMLError) -> str:
    """Return line, column and cause of what PyYAML raised."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return say("it has a character that YAML does not allow")
    mark, cause = error.problem_mark, _yaml_cause(error.problem or "")
    return say("line {line}, column {column}: {cause}", line=mark.line + 1, column=mark.column + 1, cause=cause)


def _json_cause(text: str) -> str:
    causes = {
        "Expecting value": say("a value is missing, or a text has no double quotes"),
        "Expecting property name enclosed in double quotes": say("a key in double quotes is missing"),
        "Expecting ':' delimiter": say("a colon is missing after the key"),
        "Expecting ',' delimiter": say("a comma or a closing bracket is missing"),
        "Extra data": say("something follows after the end of the value"),
        "Unterminated string starting at": say("the text that begins here is not closed by a double quote"),
        "Invalid control character at": say("a line break or tab inside a text; write \\n or \\t"),
    }
    escape = say("a backslash that JSON does not know; write \\\\ for a backslash")
    return causes.get(text, escape if "escape" in text else say("this is not JSON"))


def _yaml_cause(text: str) -> str:
    if "mapping values are not allowed" in text:
        return say("a key is not allowed here; check the indentation, and quote texts that hold a colon")
    if "'\\t'" in text:
        return say("a tab is not allowed here; indent with spaces")
    if text.startswith(("expected ',' or", "found unexpected end of stream")):
        return say("a comma, a quote or a closing bracket is missing")
    if "expected ':'" in text:
        return say("a colon is missing after the key")
    return say("check the indentation, the colons and the quotes")
