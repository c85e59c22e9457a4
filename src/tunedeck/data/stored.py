"""Keep examples that are too many for memory in an Arrow file on disk."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, final, overload

import numpy as np
from numpy.typing import NDArray

from tunedeck.core.bundle import cache_folder
from tunedeck.data.pieces import PIECE, counting_rows, table_pieces
from tunedeck.data.table import Table

LEFT_BEHIND_S = 7 * 24 * 3600
"""Age of a file of examples that no process is expected to use any longer."""
_PREFIX = "rows-"
_PARTS = 16

E = TypeVar("E")
Numbers = NDArray[np.int64]
Cells: TypeAlias = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Form(Generic[E]):
    """How examples of one kind are kept in a file: a row of texts for each, and a set of labels that many share."""

    columns: tuple[str, ...]
    cells: Callable[[E], Cells]
    labels: Callable[[E], tuple[str, ...]]
    example: Callable[[Cells, tuple[str, ...]], E]
    """The example again, of its cells and labels."""


@dataclass(frozen=True, slots=True)
class _File(Generic[E]):
    """Rows in a memory-mapped Arrow file, and what is asked of all of them: their set of labels and length."""

    form: Form[E]
    table: Any
    folder: tempfile.TemporaryDirectory[str]
    label_sets: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int32]
    lengths: NDArray[np.int32]


@final
class StoredExamples(Sequence[E]):
    """Examples in a memory-mapped Arrow file, which is removed with the last object that reads it.

    Memory holds 16 bytes for each: its place in the file, the number of its set of labels, and its length.
    """

    def __init__(self, file: _File[E], numbers: Numbers) -> None:
        self._file, self._numbers = file, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> E: ...

    @overload
    def __getitem__(self, place: slice) -> StoredExamples[E]: ...

    def __getitem__(self, place: int | slice) -> E | StoredExamples[E]:
        if isinstance(place, slice):
            return StoredExamples(self._file, self._numbers[place])
        return self._examples(self._numbers[place : place + 1 or None])[0]

    def __iter__(self) -> Iterator[E]:
        for at in range(0, len(self), PIECE):
            yield from self._examples(self._numbers[at : at + PIECE])

    def select(self, places: Numbers | Sequence[int]) -> StoredExamples[E]:
        """Return the examples at some places, in that order, without reading them."""
        return StoredExamples(self._file, self._numbers[np.asarray(places, np.int64)])

    def by_labels(self) -> dict[tuple[str, ...], Numbers]:
        """Return the places of the examples with each set of labels, in the order of the first of each."""
        codes = self._file.codes[self._numbers]
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        groups = sorted(np.split(order, starts[1:]), key=lambda group: int(group[0])) if len(order) else []
        return {self._file.label_sets[codes[group[0]]]: group for group in groups}

    def lengths(self) -> NDArray[np.int32]:
        """Return the number of characters of each example's texts."""
        return self._file.lengths[self._numbers]

    def _examples(self, numbers: Numbers) -> list[E]:
        form, part = self._file.form, self._file.table.take(numbers)
        cells = zip(*(part[name].to_pylist() for name in form.columns), strict=True)
        labels = (self._file.label_sets[code] for code in self._file.codes[numbers].tolist())
        return [form.example(own, given) for own, given in zip(cells, labels, strict=True)]


def stored_examples(
    reference: str, encoding: str, form: Form[E], reader: Callable[[Table], Callable[[Table], Sequence[E]]]
) -> tuple[StoredExamples[E], Table]:
    """Read a large CSV, TSV, JSON lines or Parquet file; return its examples, and the table of its first rows.

    `reader` decides by the first rows how all are read. Raises DataError as for a file that is read whole.
    """
    folder = tempfile.TemporaryDirectory(dir=_room(), prefix=_PREFIX, ignore_cleanup_errors=True)
    pieces = table_pieces(reference, encoding)
    first = next(pieces)
    read = reader(first)
    with _Writer(folder, form) as writer:
        for number, table in enumerate(chain([first], pieces)):
            with counting_rows(number):
                writer.write(read(table))
    return writer.examples(), first


def read_filled(table: Table, columns: Sequence[str], read: Callable[[Table], Sequence[E]]) -> Sequence[E]:
    """Return what is read of the rows of a piece that have a text in each of the columns; nothing where none has."""
    kept = [row for row in table.rows if all(str(row[column] or "").strip() for column in columns)]
    return read(replace(table, rows=kept)) if kept else []


@final
class _Writer(Generic[E]):
    """Append examples to an Arrow file in a folder."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], form: Form[E]) -> None:
        import pyarrow

        self._folder, self._path, self._form = folder, str(Path(folder.name) / "examples.arrow"), form
        self._schema = pyarrow.schema([(name, pyarrow.string()) for name in form.columns])
        self._label_sets: dict[tuple[str, ...], int] = {}
        self._codes, self._lengths = array("i"), array("i")
        self._open = ExitStack()

    def __enter__(self) -> _Writer[E]:
        import pyarrow

        sink = self._open.enter_context(pyarrow.OSFile(self._path, "wb"))
        self._writer = self._open.enter_context(pyarrow.ipc.new_file(sink, self._schema))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def write(self, examples: Sequence[E]) -> None:
        """Append examples as a batch."""
        import pyarrow

        cells = [self._form.cells(one) for one in examples]
        columns = [[own[place] for own in cells] for place in range(len(self._form.columns))]
        self._writer.write_batch(pyarrow.record_batch(columns, schema=self._schema))
        labels = map(self._form.labels, examples)
        self._codes.extend(self._label_sets.setdefault(own, len(self._label_sets)) for own in labels)
        self._lengths.extend(len(" | ".join(filter(None, own))) for own in cells)  # as a TextPair shows its texts

    def examples(self) -> StoredExamples[E]:
        """Return the examples of the closed file."""
        import pyarrow

        table = pyarrow.ipc.open_file(pyarrow.memory_map(self._path)).read_all()
        codes, lengths = (np.frombuffer(values, np.int32) for values in (self._codes, self._lengths))
        return StoredExamples(
            _File(self._form, table, self._folder, tuple(self._label_sets), codes, lengths), np.arange(len(codes))
        )


def deduplicated_places(texts: Iterator[str], count: int) -> Numbers:
    """Return the places of the first of each group of equal texts, by 8 bytes of a digest of each text."""
    digests = text_digests(texts, count)
    first = np.zeros(count, bool)
    for part in range(_PARTS):  # equal texts are in the same part; sorting it takes five times its size
        places = np.flatnonzero(digests % _PARTS == part)
        first[places[np.unique(digests[places], return_index=True)[1]]] = True
    return np.flatnonzero(first)


def text_digests(texts: Iterator[str], count: int) -> NDArray[np.uint64]:
    """Return 8 bytes for each of `count` texts; among ten million texts two are taken for equal once in 400,000."""
    digests = (
        int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
        for text in texts
    )
    return np.fromiter(digests, np.uint64, count)


def _room() -> Path:
    """Return the folder for the files of examples, without those that killed processes left there."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_PREFIX}*"):
        if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
            shutil.rmtree(left, ignore_errors=True)  # a process that still reads it keeps what it has mapped
    return folder
