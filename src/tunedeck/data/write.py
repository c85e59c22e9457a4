"""Rows written piece by piece to a file that is there once all of them are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import replacing_file
from tunedeck.data.rows import Rows
from tunedeck.data.write_sheet import sheet_writer

WriteRows = Callable[[Rows], None]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*_SEPARATORS, ".json", ".jsonl", ".parquet", ".xlsx")


def check_ending(target: Path) -> None:
    """Raise DataError for a file whose ending is none of `ENDINGS`."""
    if target.suffix.lower() not in ENDINGS:
        raise DataError(
            say("cannot write {path}: its name must end in one of: {known}", path=target, known=listing(ENDINGS))
        )


@contextmanager
def row_writer(target: Path) -> Iterator[WriteRows]:
    """Yield a function that appends rows, which all have the keys of the first.

    The file takes the place of an earlier one when the block ends without an error. Raises DataError for an unknown
    ending, for more rows than a spreadsheet can have or, in Parquet, a value of another type than the first rows have;
    StorageError when the disk refuses.
    """
    check_ending(target)
    suffix = target.suffix.lower()
    with replacing_file(target) as part:
        if suffix == ".parquet":
            with _parquet_writer(part) as write:
                yield write
            return
        if suffix == ".xlsx":
            with sheet_writer(part) as append:
                yield lambda rows: append(
                    rows[0] if rows else (), [[_cell(one) for one in row.values()] for row in rows]
                )
            return
        with part.open("w", encoding="utf-8", newline="") as stream:
            if suffix in _SEPARATORS:
                yield _separated_writer(stream, _SEPARATORS[suffix])
            elif suffix == ".jsonl":
                yield lambda rows: stream.writelines(_as_json(row) + "\n" for row in rows)
            else:
                yield _list_writer(stream)
                stream.write("\n]\n" if stream.tell() else "[]\n")


def _separated_writer(stream: TextIO, separator: str) -> WriteRows:
    # With "\r\n" at the end of a row, csv quotes a lone "\r" inside it, too.
    lines = SimpleNamespace(write=lambda line: stream.write(line.removesuffix("\r\n") + "\n"))
    writer = csv.writer(lines, delimiter=separator, lineterminator="\r\n")

    def write(rows: Rows) -> None:
        if rows and not stream.tell():
            writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)

    return write


def _list_writer(stream: TextIO) -> WriteRows:
    def write(rows: Rows) -> None:
        for row in rows:
            stream.write((",\n" if stream.tell() else "[\n") + _as_json(row))

    return write


@contextmanager
def _parquet_writer(part: Path) -> Iterator[WriteRows]:
    import pyarrow
    import pyarrow.parquet

    writers: list[Any] = []

    def write(rows: Rows) -> None:
        try:
            if writers:
                table = pyarrow.Table.from_pylist(rows, schema=writers[0].schema)
            else:
                table = pyarrow.Table.from_pylist(rows)
                fields = [
                    field.with_type(pyarrow.string()) if pyarrow.types.is_null(field.type) else field
                    for field in table.schema
                ]
                table = table.cast(pyarrow.schema(fields))
                writers.append(pyarrow.parquet.ParquetWriter(part, table.schema))
            writers[0].write_table(table)
        except pyarrow.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(say("cannot write Parquet: {reason}; write .jsonl instead", reason=reason)) from error

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


def _cell(value: object) -> object:
    """Return a value as a cell: nothing for None, several labels divided by commas, an object as JSON."""
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return _as_json(value) if isinstance(value, (dict, list, tuple)) else value


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
