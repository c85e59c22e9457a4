"""Read files that are too large for memory piece by piece."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason
from tunedeck.data.disguise import check_kind
from tunedeck.data.encoding import AUTO, SAMPLE_BYTES, UTF_8, detect
from tunedeck.data.files import (
    GZIP,
    MOST_BYTES,
    encoding_note,
    gzip_errors,
    kind_of,
    parquet_errors,
    unpacks_to_too_much,
)
from tunedeck.data.json_rows import read_json_lines
from tunedeck.data.rows import Content
from tunedeck.data.separated import noticed_delimiter, separated_pieces
from tunedeck.data.table import Table, read_table

LARGE_BYTES = 32 << 20
"""Files from this size on, unpacked, are read piece by piece; as Python objects they take twenty times as much."""
PIECE = 20_000
"""Rows that are in memory at a time."""
LONGEST_LINE = 1 << 26
"""Characters of a line, more than which are read from no file."""
_CHUNK = 1 << 20
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_KINDS = (*_DELIMITERS, ".jsonl")


def is_large(reference: str) -> bool:
    """Tell whether a reference is a file that is read piece by piece."""
    path = Path(reference).expanduser()
    if not path.is_file():
        return False
    if path.name.lower().endswith(GZIP):
        return kind_of(path) in _KINDS and _unpacks_to(path, LARGE_BYTES)
    return kind_of(path) in (*_KINDS, ".parquet") and path.stat().st_size >= LARGE_BYTES


def table_pieces(reference: str, encoding: str) -> Iterator[Table]:
    """Yield the table of a data reference, that of a large file in pieces of PIECE rows.

    Raises DataError as `read_table`.
    """
    if not is_large(reference):
        yield read_table(reference, encoding)
        return
    empty = True
    for content in content_pieces(Path(reference).expanduser(), encoding):
        if content.rows:
            empty = False
            yield Table(reference, *content)
    if empty:
        raise DataError(say("{source} has a header or columns but no rows", source=reference))


def first_rows(reference: str, encoding: str, most: int) -> Table:
    """Return the table of a data reference, that of a large file with its first rows alone.

    Raises DataError as `read_table`.
    """
    if not is_large(reference):
        return read_table(reference, encoding)
    pieces = table_pieces(reference, encoding)
    table = next(pieces)
    rows, count = table.rows[:most], len(table.rows)
    for piece in pieces:
        rows += piece.rows[: most - len(rows)]
        count += len(piece.rows)
    table = replace(table, rows=rows)
    if count <= most:
        return table
    note = say(
        "{path} has {count:,} rows, of which the first {most:,} are checked", path=reference, count=count, most=most
    )
    return replace(table, notes=(*table.notes, note))


@contextmanager
def counting_rows(piece: int) -> Iterator[None]:
    """Add to a DataError about a later piece where its rows are counted from."""
    try:
        yield
    except DataError as error:
        if piece == 0:
            raise
        raise DataError(say("{reason} (rows counted from row {row})", reason=error, row=piece * PIECE + 1)) from error


def content_pieces(path: Path, encoding: str) -> Iterator[Content]:
    """Yield the rows of a CSV, TSV, JSON lines or Parquet file, PIECE at a time; DataError as for a whole file."""
    if kind_of(path) == ".parquet":
        yield from _parquet_pieces(path)
        return
    with _opened(path) as content:
        check_kind(path, content.read(SAMPLE_BYTES), kind_of(path))
    with _opened(path) as content:
        found = _found_encoding(path, content) if encoding == AUTO else encoding
    with _opened(path) as content:
        try:
            yield from _text_pieces(path, content, found, encoding_note(path, encoding, found))
        except (UnicodeDecodeError, LookupError) as error:
            raise DataError(
                say(
                    "{path} is not {encoding}; save it as UTF-8, or pass its encoding with --encoding",
                    path=path,
                    encoding=found,
                )
            ) from error


def _text_pieces(path: Path, content: BinaryIO, encoding: str, notes: tuple[str, ...]) -> Iterator[Content]:
    usual = _DELIMITERS.get(kind_of(path))
    with io.TextIOWrapper(content, "utf-8-sig" if encoding == UTF_8 else encoding, newline="") as stream:
        if usual is None:
            pieces = _line_pieces(path, _lines(path, stream))
        else:
            delimiter = noticed_delimiter(stream.read(SAMPLE_BYTES + 1), usual)
            stream.seek(0)
            pieces = separated_pieces(path, _lines(path, stream), delimiter, PIECE)
        for one in pieces:
            if content.tell() > MOST_BYTES:
                raise unpacks_to_too_much(path, MOST_BYTES)
            yield one._replace(notes=(*notes, *one.notes))


def _unpacks_to(path: Path, size: int) -> bool:
    """Tell whether a gzip file unpacks to a size or more; False for a damaged one, whose reading tells the reason."""
    try:
        with gzip.open(path) as content:
            while size > 0 and (chunk := content.read(min(size, _CHUNK))):
                size -= len(chunk)
    except (OSError, EOFError, zlib.error):
        return False
    return size <= 0


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.name.lower().endswith(GZIP):
        with gzip_errors(path), gzip.open(path) as unpacked:
            yield cast(BinaryIO, unpacked)
        return
    try:
        content = path.open("rb")
    except OSError as error:
        raise DataError(say("cannot read {path}: {reason}", path=path, reason=system_reason(error))) from error
    with content:
        yield content


def _found_encoding(path: Path, content: BinaryIO) -> str:
    """Return the encoding by the first bytes, or by the first that are not UTF-8 where these come later."""
    first = sample = content.read(SAMPLE_BYTES)
    if b"\0" in first:
        return detect(path, first)
    decoder = codecs.getincrementaldecoder(UTF_8)()
    try:
        while sample and b"\0" not in sample:
            decoder.decode(sample)
            sample = content.read(SAMPLE_BYTES)
    except UnicodeDecodeError:
        return detect(path, _whole_lines(sample))
    return UTF_8


def _whole_lines(sample: bytes) -> bytes:
    return sample[: sample.rfind(b"\n") + 1] or sample


def _lines(path: Path, stream: TextIO) -> Iterator[str]:
    """Yield lines; DataError for one that would fill the memory, as a damaged or hostile file may have."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE and not line.endswith(("\n", "\r")):
            raise DataError(
                say(
                    "{path}, line {line} has more than {count:,} characters; check that the file is what it should be",
                    path=path,
                    line=number,
                    count=LONGEST_LINE,
                )
            )
        yield line


def _line_pieces(path: Path, lines: Iterator[str]) -> Iterator[Content]:
    first, known = 1, dict[str, None]()
    while piece := list(islice(lines, PIECE)):
        found = read_json_lines(path, "".join(piece), first)
        known |= dict.fromkeys(found.columns)
        if len(known) > len(found.columns):  # a column that no row of this piece has is there all the same
            found = found._replace(columns=tuple(known), rows=[{**dict.fromkeys(known), **row} for row in found.rows])
        yield found
        first += len(piece)


def _parquet_pieces(path: Path) -> Iterator[Content]:
    from pyarrow.parquet import ParquetFile

    with parquet_errors(path):
        for batch in ParquetFile(path).iter_batches(PIECE):
            yield Content(tuple(batch.schema.names), batch.to_pylist())
