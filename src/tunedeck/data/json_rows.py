"""Rows out of JSON: a list of objects, or an object per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.syntax import json_cause
from tunedeck.data.rows import Content


def read_json(path: Path, text: str) -> Content:
    """Read a list of objects, or an object per line; DataError names the line that cannot be read."""
    if not text.lstrip().startswith("["):
        return read_json_lines(path, text)
    return _as_table(path, list(enumerate(_parse_json(path, text, 1), start=1)), say("item"))


def read_json_lines(path: Path, text: str, first_line: int = 1) -> Content:
    """Read an object per line; DataError names the line that cannot be read."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=first_line) if line.strip()]
    return _as_table(path, [(number, _parse_json(path, line, number)) for number, line in lines], say("line"))


def _parse_json(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        inside = error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        raise DataError(
            say(
                "{path}, line {line}: not valid JSON: {reason}; a file holds one list of objects, or one "
                "object per line",
                path=path,
                line=first_line + inside,
                reason=json_cause(error),
            )
        ) from error


def _as_table(path: Path, values: list[tuple[int, object]], unit: str) -> Content:
    for number, value in values:
        if not isinstance(value, dict):
            raise DataError(
                say(
                    '{path}, {unit} {number}: expected an object such as {{"text": ..., "label": ...}}, found {kind}',
                    path=path,
                    unit=unit,
                    number=number,
                    kind=type(value).__name__,
                )
            )
    objects = [value for _, value in values if isinstance(value, dict)]
    columns = tuple(dict.fromkeys(key for row in objects for key in row))
    return Content(columns, [{column: row.get(column) for column in columns} for row in objects])
