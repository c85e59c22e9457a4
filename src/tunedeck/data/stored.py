"""Keep labelled examples that are too many for memory in an Arrow file on disk."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final, overload

import numpy as np
from numpy.typing import NDArray

from tunedeck.core.bundle import cache_folder
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.data.labelled import Example, label_column_of, labelled_examples, text_column_of
from tunedeck.data.paired import first_column, second_column
from tunedeck.data.pieces import PIECE, content_pieces, counting_rows
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import Table

LEFT_BEHIND_S = 7 * 24 * 3600
"""Age of a file of examples that no process is expected to use any longer."""
_PREFIX = "rows-"
_PARTS = 16

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _File:
    """Texts in a memory-mapped Arrow file, and what is asked of all rows: their set of labels and length."""

    table: Any
    folder: tempfile.TemporaryDirectory[str]
    label_sets: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int32]
    lengths: NDArray[np.int32]


@final
class StoredExamples(Sequence[Example]):
    """Examples in a memory-mapped Arrow file, which is removed with the last object that reads it.

    Memory holds 16 bytes for each: its place in the file, the number of its set of labels, and its length.
    """

    def __init__(self, file: _File, numbers: Numbers) -> None:
        self._file, self._numbers = file, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> StoredExamples: ...

    def __getitem__(self, place: int | slice) -> Example | StoredExamples:
        if isinstance(place, slice):
            return StoredExamples(self._file, self._numbers[place])
        return self._examples(self._numbers[place : place + 1 or None])[0]

    def __iter__(self) -> Iterator[Example]:
        for at in range(0, len(self), PIECE):
            yield from self._examples(self._numbers[at : at + PIECE])

    def select(self, places: Numbers | Sequence[int]) -> StoredExamples:
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
        """Return the number of characters of each text."""
        return self._file.lengths[self._numbers]

    def _examples(self, numbers: Numbers) -> list[Example]:
        part = self._file.table.take(numbers)
        texts, seconds = (part[name].to_pylist() for name in ("text", "second"))
        labels = [self._file.label_sets[code] for code in self._file.codes[numbers].tolist()]
        return [
            Example(text if second is None else TextPair(text, second), own)
            for text, second, own in zip(texts, seconds, labels, strict=True)
        ]


def stored_examples(
    reference: str, settings: DataSettings, multi_label: bool, pairs: bool | None = None
) -> tuple[StoredExamples, str, tuple[str, ...]]:
    """Read a large CSV, TSV, JSON lines or Parquet file; return its examples, its text column and what to tell.

    The first rows decide which columns hold text and label. Raises DataError as for a file that is read whole.
    """
    folder = tempfile.TemporaryDirectory(dir=_room(), prefix=_PREFIX, ignore_cleanup_errors=True)
    columns: tuple[str, str, str | None] | None = None
    notes: tuple[str, ...] = ()
    with _Writer(folder) as writer:
        for number, content in enumerate(content_pieces(Path(reference).expanduser(), settings.encoding)):
            table = Table(reference, *content)
            if columns is None:
                second = second_column(table, settings.text, settings.text_pair, pairs)
                text = settings.text or (first_column(table, second) if second else None)
                label = label_column_of(table, settings.label, text)
                columns, notes = (text_column_of(table, text, label), label, second), table.notes
            writer.write(_examples_of(table, columns, multi_label, settings.drop_empty, number))
    if columns is None:
        raise DataError(say("{source} has a header or columns but no rows", source=reference))
    return writer.examples(), columns[0], notes


@final
class _Writer:
    """Append examples to an Arrow file in a folder."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str]) -> None:
        import pyarrow

        self._folder, self._path = folder, str(Path(folder.name) / "examples.arrow")
        self._schema = pyarrow.schema([("text", pyarrow.string()), ("second", pyarrow.string())])
        self._label_sets: dict[tuple[str, ...], int] = {}
        self._codes, self._lengths = array("i"), array("i")
        self._open = ExitStack()

    def __enter__(self) -> _Writer:
        import pyarrow

        sink = self._open.enter_context(pyarrow.OSFile(self._path, "wb"))
        self._writer = self._open.enter_context(pyarrow.ipc.new_file(sink, self._schema))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def write(self, examples: Sequence[Example]) -> None:
        """Append examples as a batch."""
        import pyarrow

        texts = [one.text.first if isinstance(one.text, TextPair) else one.text for one in examples]
        seconds = [one.text.second if isinstance(one.text, TextPair) else None for one in examples]
        self._writer.write_batch(pyarrow.record_batch([texts, seconds], schema=self._schema))
        self._codes.extend(self._label_sets.setdefault(one.labels, len(self._label_sets)) for one in examples)
        self._lengths.extend(len(one.text) for one in examples)

    def examples(self) -> StoredExamples:
        """Return the examples of the closed file."""
        import pyarrow

        table = pyarrow.ipc.open_file(pyarrow.memory_map(self._path)).read_all()
        codes, lengths = (np.frombuffer(values, np.int32) for values in (self._codes, self._lengths))
        return StoredExamples(
            _File(table, self._folder, tuple(self._label_sets), codes, lengths), np.arange(len(codes))
        )


def deduplicated_places(texts: Iterator[str], count: int) -> Numbers:
    """Return the places of the first of each group of equal texts, 8 bytes of a digest standing for each text."""
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
