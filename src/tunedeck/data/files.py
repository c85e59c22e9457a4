"""Rows out of CSV, TSV, JSON and Parquet files; every value as the file has it, no guessing of missing ones."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say

Columns = tuple[str, ...]
Rows = list[dict[str, object]]


def read_file(path: Path, encoding: str) -> tuple[Columns, Rows]:
    """The columns and rows of a .csv, .tsv, .json, .jsonl or .parquet file; DataError for what cannot be read."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix not in _READERS:
        raise DataError(
            say(
                "cannot read {path}: files of the kind {suffix!r} are not known; save it as one of: {known}",
                path=path,
                suffix=suffix,
                known=listing((*_READERS, ".parquet")),
            )
        )
    return _READERS[suffix](path, read_text(path, encoding))


def read_text(path: Path, encoding: str) -> str:
    """A text file's content without a byte order mark; DataError when it is empty or not in this encoding."""
    content = _read_bytes(path)
    if not content.strip():
        raise DataError(say("{path} is empty", path=path))
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise DataError(
            say("unknown encoding {encoding!r}; common ones are utf-8, gb18030, utf-16, cp1252", encoding=encoding)
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            say(
                "{path} is not {encoding}: byte {offset} in line {line} does not fit; {hint}",
                path=path,
                encoding=encoding,
                offset=error.start,
                line=content.count(b"\n", 0, error.start) + 1,
                hint=_encoding_hint(content),
            )
        ) from error


def is_known(path: Path) -> bool:
    """Whether files with this ending can be read."""
    return path.suffix.lower() in (*_READERS, ".parquet")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(say("cannot read {path}: {reason}", path=path, reason=error.strerror or error)) from error


def _encoding_hint(content: bytes) -> str:
    candidates = ("utf-16",) if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8", "gb18030")
    for encoding in candidates:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return say("it reads as {encoding}: pass --encoding {encoding}", encoding=encoding)
    return say("save it as UTF-8, or pass its encoding with --encoding")


def _read_csv(path: Path, text: str) -> tuple[Columns, Rows]:
    return read_separated(path, text, separator_of(text, ","))


def _read_tsv(path: Path, text: str) -> tuple[Columns, Rows]:
    return read_separated(path, text, separator_of(text, "\t"))


def separator_of(text: str, usual: str) -> str:
    """Return the separator of a table: the usual one, unless only one other divides the header and the first row."""
    header, *first_row = text.lstrip("\r\n").split("\n", 2)[:2]
    others = [mark for mark in (",", ";", "\t") if mark in header and all(mark in row for row in first_row)]
    return others[0] if usual not in header and len(others) == 1 else usual


def read_separated(path: Path, text: str, delimiter: str) -> tuple[Columns, Rows]:
    """Read CSV or TSV; DataError names the line that cannot be read."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: Columns = ()
    rows: Rows = []
    first_line = 1
    try:
        for values in reader:
            if values and not columns:
                columns = _header(path, values)
            elif values:
                _check_width(path, first_line, columns, values)
                rows.append(dict(zip(columns, values, strict=True)))
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            say(
                "{path}, the row from line {line}: {reason}; put a text that holds quotes in double quotes and double "
                "each quote inside it",
                path=path,
                line=first_line,
                reason=error,
            )
        ) from error
    return columns, rows


def _header(path: Path, values: list[str]) -> Columns:
    columns = tuple(value.strip() or f"column {number}" for number, value in enumerate(values, start=1))
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(say("{path} has more than one column named: {names}", path=path, names=listing(repeated)))
    return columns


def _check_width(path: Path, line: int, columns: Columns, values: list[str]) -> None:
    if len(values) != len(columns):
        raise DataError(
            say(
                "{path}, line {line}: {seen} values, but the header has {expected} columns ({columns}); put a text "
                "that holds the separator in double quotes",
                path=path,
                line=line,
                seen=len(values),
                expected=len(columns),
                columns=listing(columns),
            )
        )


def _read_json(path: Path, text: str) -> tuple[Columns, Rows]:
    if not text.lstrip().startswith("["):
        return _read_json_lines(path, text)
    return _as_table(path, list(enumerate(_parse_json(path, text, 1), start=1)), say("item"))


def _read_json_lines(path: Path, text: str) -> tuple[Columns, Rows]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
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
                reason=error.msg if isinstance(error, json.JSONDecodeError) else error,
            )
        ) from error


def _as_table(path: Path, values: list[tuple[int, object]], unit: str) -> tuple[Columns, Rows]:
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
    return columns, [{column: row.get(column) for column in columns} for row in objects]


def _read_parquet(path: Path) -> tuple[Columns, Rows]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        return tuple(table.column_names), table.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            say(
                "cannot read {path} as Parquet: {reason}; write it again or save it as CSV",
                path=path,
                reason=str(error).splitlines()[0],
            )
        ) from error


_READERS: dict[str, Callable[[Path, str], tuple[Columns, Rows]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
}
