"""Read files that are too large for memory piece by piece; keep labelled examples in an Arrow file on disk."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, final, overload

import numpy as np
from numpy.typing import NDArray

from tunedeck.core.bundle import cache_folder
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.data.encoding import AUTO, SAMPLE_BYTES, detect
from tunedeck.data.files import encoding_note, kind_of, parquet_errors
from tunedeck.data.json_rows import read_json_lines
from tunedeck.data.labelled import Example, label_column_of, labelled_examples, text_column_of
from tunedeck.data.paired import first_column, second_column
from tunedeck.data.rows import Content
from tunedeck.data.separated import noticed_delimiter, separated_pieces
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import Table, read_table

LARGE_BYTES = 256 << 20
"""Files from this size on are read piece by piece."""
PIECE = 20_000
"""Rows that are in memory at a time."""
LEFT_BEHIND_S = 7 * 24 * 3600
"""Age of a file of examples that no process is expected to use any longer."""
_PREFIX = "rows-"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
KINDS = (*_DELIMITERS, ".jsonl", ".parquet")

Numbers = NDArray[np.int64]


@final
class StoredExamples(Sequence[Example]):
    """Examples in a memory-mapped Arrow file, which is removed with the last object that reads it."""

    def __init__(self, table: Any, folder: tempfile.TemporaryDirectory[str], numbers: Numbers) -> None:
        self._table, self._folder, self._numbers = table, folder, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> StoredExamples: ...

    def __getitem__(self, place: int | slice) -> Example | StoredExamples:
        if isinstance(place, slice):
            return StoredExamples(self._table, self._folder, self._numbers[place])
        return self._examples(self._numbers[place : place + 1 or None])[0]

    def __iter__(self) -> Iterator[Example]:
        for at in range(0, len(self), PIECE):
            yield from self._examples(self._numbers[at : at + PIECE])

    def select(self, places: Numbers | Sequence[int]) -> StoredExamples:
        """Return the examples at some places, in that order, without reading them."""
        return StoredExamples(self._table, self._folder, self._numbers[np.asarray(places, np.int64)])

    def _examples(self, numbers: Numbers) -> list[Example]:
        part = self._table.take(numbers)
        texts, seconds, labels = (part[name].to_pylist() for name in ("text", "second", "labels"))
        return [
            Example(text if second is None else TextPair(text, second), tuple(own))
            for text, second, own in zip(texts, seconds, labels, strict=True)
        ]


def is_large(reference: str) -> bool:
    """Tell whether a reference is a file that is read piece by piece."""
    path = Path(reference).expanduser()
    return path.suffix.lower() in KINDS and path.is_file() and path.stat().st_size >= LARGE_BYTES


def table_pieces(reference: str, encoding: str) -> Iterator[Table]:
    """Yield the table of a data reference, that of a large file in pieces of PIECE rows.

    Raises DataError as `read_table`.
    """
    if not is_large(reference):
        yield read_table(reference, encoding)
        return
    empty = True
    with ExitStack() as stack:
        for content in _pieces(Path(reference).expanduser(), encoding, stack):
            if content.rows:
                empty = False
                yield Table(reference, *content)
    if empty:
        raise DataError(say("{source} has a header or columns but no rows", source=reference))


@contextmanager
def counting_rows(piece: int) -> Iterator[None]:
    """Add to a DataError about a later piece where its rows are counted from."""
    try:
        yield
    except DataError as error:
        if piece == 0:
            raise
        raise DataError(say("{reason} (rows counted from row {row})", reason=error, row=piece * PIECE + 1)) from error


def stored_examples(
    reference: str, settings: DataSettings, multi_label: bool, pairs: bool | None = None
) -> tuple[StoredExamples, str, tuple[str, ...]]:
    """Read a large CSV, TSV, JSON lines or Parquet file; return its examples, its text column and what to tell.

    The first rows decide which columns hold text and label. Raises DataError as for a file that is read whole.
    """
    import pyarrow

    path = Path(reference).expanduser()
    folder = tempfile.TemporaryDirectory(dir=_room(), prefix=_PREFIX, ignore_cleanup_errors=True)
    schema = pyarrow.schema(
        [("text", pyarrow.string()), ("second", pyarrow.string()), ("labels", pyarrow.list_(pyarrow.string()))]
    )
    file = Path(folder.name) / "examples.arrow"
    columns: tuple[str, str, str | None] | None = None
    notes: tuple[str, ...] = ()
    with ExitStack() as stack, pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:
        for number, content in enumerate(_pieces(path, settings.encoding, stack)):
            table = Table(reference, *content)
            if columns is None:
                second = second_column(table, settings.text, settings.text_pair, pairs)
                text = settings.text or (first_column(table, second) if second else None)
                label = label_column_of(table, settings.label, text)
                columns, notes = (text_column_of(table, text, label), label, second), table.notes
            found = _examples_of(table, columns, multi_label, settings.drop_empty, number)
            both = [one.text if isinstance(one.text, TextPair) else None for one in found]
            rows = [
                [one.text if pair is None else pair.first for one, pair in zip(found, both, strict=True)],
                [None if pair is None else pair.second for pair in both],
                [list(one.labels) for one in found],
            ]
            writer.write_batch(pyarrow.record_batch(rows, schema=schema))
    if columns is None:
        raise DataError(say("{source} has a header or columns but no rows", source=reference))
    stored = pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()
    return StoredExamples(stored, folder, np.arange(len(stored))), columns[0], notes


def deduplicated_places(texts: Iterator[str]) -> Numbers:
    """Return the places of the first of each group of equal texts, 8 bytes of a digest standing for each text."""
    digests = (
        int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
        for text in texts
    )
    _, first = np.unique(np.fromiter(digests, np.uint64), return_index=True)
    return np.sort(first)


def _room() -> Path:
    """Return the folder for the files of examples, without those that killed processes left there."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_PREFIX}*"):
        if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
            shutil.rmtree(left, ignore_errors=True)  # a process that still reads it keeps what it has mapped
    return folder


def _examples_of(
    table: Table, columns: tuple[str, str, str | None], multi_label: bool, drop_empty: bool, piece: int
) -> list[Example]:
    text, label, second = columns
    if drop_empty:
        both = [text] if second is None else [text, second]
        kept = [row for row in table.rows if all(str(row[column] or "").strip() for column in both)]
        table = Table(table.source, table.columns, kept)
    with counting_rows(piece):
        return labelled_examples(table, text, label, multi_label, second=second) if table.rows else []


def _pieces(path: Path, encoding: str, stack: ExitStack) -> Iterator[Content]:
    kind = kind_of(path)
    if kind == ".parquet":
        yield from _parquet_pieces(path)
        return
    with path.open("rb") as start:
        sample = start.read(SAMPLE_BYTES)
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    found = detect(path, sample) if encoding == AUTO else encoding
    stream = stack.enter_context(path.open(encoding="utf-8-sig" if found == "utf-8" else found, newline=""))
    notes = encoding_note(path, encoding, found)
    if kind == ".jsonl":
        pieces = _line_pieces(path, stream)
    else:
        text = sample.decode(found, errors="replace").removeprefix("\ufeff")
        pieces = separated_pieces(path, stream, noticed_delimiter(text, _DELIMITERS[kind]), PIECE)
    try:
        for content in pieces:
            yield content._replace(notes=(*notes, *content.notes))
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            say(
                "{path} is not {encoding}; save it as UTF-8, or pass its encoding with --encoding",
                path=path,
                encoding=found,
            )
        ) from error


def _line_pieces(path: Path, stream: TextIO) -> Iterator[Content]:
    first = 1
    while lines := list(islice(stream, PIECE)):
        yield read_json_lines(path, "".join(lines), first)
        first += len(lines)


def _parquet_pieces(path: Path) -> Iterator[Content]:
    from pyarrow.parquet import ParquetFile

    with parquet_errors(path):
        for batch in ParquetFile(path).iter_batches(PIECE):
            yield Content(tuple(batch.schema.names), batch.to_pylist())
