"""Read rows from files by their ending, compressed by gzip or not, and from standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.core.system_reason import system_reason
from tunedeck.core.units import format_bytes
from tunedeck.data.disguise import check_kind
from tunedeck.data.encoding import AUTO, UTF_8, decode
from tunedeck.data.json_rows import read_json, read_json_lines
from tunedeck.data.rows import Content
from tunedeck.data.separated import read_csv, read_tsv
from tunedeck.data.sheets import SPREADSHEETS, read_sheet
from tunedeck.data.tagged_words import read_word_lines

STANDARD_INPUT = "-"
GZIP = ".gz"
MOST_BYTES = 64 << 30
"""The largest size of an unpacked gzip file that is read piece by piece."""
MOST_BYTES_WHOLE = 1 << 30
"""The largest size of one that is read whole."""
_CHUNK = 1 << 24


def read_file(path: Path, encoding: str = AUTO, sheet: str | None = None) -> Content:
    """Read a file of a known kind; DataError for what cannot be read."""
    suffix = kind_of(path)
    if suffix not in _KINDS:
        raise DataError(
            say(
                "cannot read {path}: files of the kind {suffix!r} are not known; save it as one of: {known}",
                path=path,
                suffix=suffix,
                known=listing(_KINDS),
            )
        )
    return _read(path, suffix, _read_bytes(path), encoding, sheet)


def read_standard_input(encoding: str = AUTO) -> Content:
    """Read standard input, whose kind is told by its first bytes; DataError for what cannot be read."""
    content, name = _standard_input(), Path(say("standard input"))
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(name, content)
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if content.startswith(b"PAR1"):
        suffix = ".parquet"
    elif content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        suffix = ".xlsx"
    else:
        suffix = ".json" if start in (b"{", b"[") else ".csv"
    return _read(name, suffix, content, encoding, None)


def read_text(path: Path, encoding: str) -> str:
    """Return a text file's content without a byte order mark; DataError when it is empty or not in this encoding."""
    return _text(path, _read_bytes(path), encoding)[0]


def is_known(path: Path) -> bool:
    """Tell whether files with this ending can be read."""
    return kind_of(path) in _KINDS


def kind_of(path: Path) -> str:
    """Return the ending in lower case, without that of gzip."""
    name = path.name.lower()
    return Path(name.removesuffix(GZIP)).suffix


def _read(path: Path, suffix: str, content: bytes, encoding: str, sheet: str | None) -> Content:
    if path.name.lower().endswith(GZIP):
        content = _unpacked(path, content)
    if not content.strip():
        raise DataError(say("{path} is empty", path=path))
    if sheet is not None and suffix not in SPREADSHEETS:
        raise DataError(say("{path} is not a spreadsheet and has no sheet {name!r}", path=path, name=sheet))
    check_kind(path, content, suffix)
    try:
        if suffix in SPREADSHEETS:
            return read_sheet(path, content, sheet)
        if suffix == ".parquet":
            return _read_parquet(path, content)
        text, found = _text(path, content, encoding)
        read = _TEXT_KINDS[suffix](path, text)
    except MemoryError as error:
        raise _too_large(path, len(content)) from error
    return read._replace(notes=(*encoding_note(path, encoding, found), *read.notes))


def encoding_note(path: Path, asked: str, found: str) -> tuple[str, ...]:
    """Return what to tell where an encoding was detected that is not UTF-8."""
    if asked != AUTO or found == UTF_8:
        return ()
    return (say("{path} is read as {encoding}; for another pass --encoding", path=path, encoding=found),)


def _text(path: Path, content: bytes, encoding: str) -> tuple[str, str]:
    if not content.strip():
        raise DataError(say("{path} is empty", path=path))
    text, found = decode(path, content, encoding)
    if not text.strip():
        raise DataError(say("{path} is empty", path=path))
    return text, found


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except MemoryError as error:
        raise _too_large(path, path.stat().st_size) from error
    except OSError as error:
        raise DataError(say("cannot read {path}: {reason}", path=path, reason=system_reason(error))) from error


def _too_large(path: Path, size: int) -> DataError:
    text = say(
        "{path} ({size}) does not fit in memory; save it as Parquet or split it", path=path, size=format_bytes(size)
    )
    return DataError(text)


def check_regular(path: Path) -> None:
    """Raise DataError for a pipe or a device, of which reading may never end."""
    if path.exists() and not path.is_file():
        raise DataError(
            say("{path} is a pipe or a device, not a file; write - for it, and give it as standard input", path=path)
        )


@cache
def _standard_input() -> bytes:
    """Return the content of standard input, which can be read only once."""
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError(say("{path} means standard input, but nothing is piped into it", path=STANDARD_INPUT))
    return sys.stdin.buffer.read()


def _unpacked(path: Path, content: bytes) -> bytes:
    parts, size = [], 0
    with gzip_errors(path), gzip.open(io.BytesIO(content)) as stream:
        while part := stream.read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES_WHOLE:
                raise unpacks_to_too_much(path, MOST_BYTES_WHOLE)
    return b"".join(parts)


@contextmanager
def gzip_errors(path: Path) -> Iterator[None]:
    """Raise DataError where the block cannot unpack a file."""
    try:
        yield
    except EOFError as error:
        raise DataError(say("{path} is damaged or not a gzip file: it is cut short", path=path)) from error
    except (OSError, zlib.error) as error:
        raise DataError(say("{path} is damaged or not a gzip file: {reason}", path=path, reason=error)) from error


def unpacks_to_too_much(path: Path, size: int) -> DataError:
    """Return the error for a gzip file that unpacks to more than a size."""
    return DataError(
        say(
            "{path} unpacks to more than {size}, which is too much to unpack while it is read; unpack it, or split it",
            path=path,
            size=format_bytes(size),
        )
    )


def _read_parquet(path: Path, content: bytes) -> Content:
    import pyarrow
    import pyarrow.parquet

    with parquet_errors(path):
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        return Content(tuple(table.column_names), table.to_pylist())


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Raise DataError where the block cannot read a file as Parquet."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        if "magic bytes" in reason:
            reason = say("it is cut short, or another kind of file")
        elif isinstance(error, OSError) and error.errno:
            reason = system_reason(error)
        elif isinstance(error, (pyarrow.ArrowInvalid, OSError)):
            reason = say("it is damaged")
        raise DataError(
            say("cannot read {path} as Parquet: {reason}; write it again or save it as CSV", path=path, reason=reason)
        ) from error


_TEXT_KINDS: dict[str, Callable[[Path, str], Content]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".conll": read_word_lines,
    ".bio": read_word_lines,
    ".txt": read_word_lines,
}
_KINDS = (*_TEXT_KINDS, ".parquet", *SPREADSHEETS)
