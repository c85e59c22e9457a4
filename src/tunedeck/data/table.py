"""Rows with named columns, from wherever a data reference points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.bundle import read_bundles
from tunedeck.core.checks import HUB_ID, HUB_ID_OR_NAME
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import nearest, say
from tunedeck.data.bundled import read_bundled
from tunedeck.data.encoding import AUTO
from tunedeck.data.files import STANDARD_INPUT, check_regular, is_known, read_file, read_standard_input
from tunedeck.data.hub import check_hub, read_hub, read_saved
from tunedeck.data.rows import Columns, Content, Rows
from tunedeck.data.text_folder import is_text_folder, read_text_folder


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a data source; every row has every column, None where the source has nothing."""

    source: str
    columns: Columns
    rows: Rows
    notes: tuple[str, ...] = ()
    """Notes for the user on how it was read, one line each."""
    named: bool = True
    """Whether the source names its columns; else they are called "column 1" and so on."""


def read_table(reference: str, encoding: str = AUTO) -> Table:
    """Read a file, standard input, a folder, a hub data set or a bundled one.

    References: a path ending in .csv, .tsv, .json, .jsonl, .parquet, .xlsx, .xls or .ods, or in .conll, .bio or .txt
    for words with tags, perhaps followed by .gz, a spreadsheet's also by `:SHEET`; `-`; a folder written by
    `save_to_disk`; a folder that holds a folder of .txt files for each class; `hf:NAME` or `org/name` on the hub;
    `bundled:NAME`. A saved folder or hub name may end in `:SPLIT` (train without it). What exists on disk is a path.
    Raises DataError; StorageError when a bundled data set cannot be fetched.
    """
    content = _read(reference.strip(), encoding)
    if not content.rows:
        raise DataError(say("{source} has a header or columns but no rows", source=reference))
    return Table(reference, *content)


def check_reference(reference: str) -> None:
    """Raise DataError for a data reference that names no file, folder or data set, before anything is read."""
    wanted = reference.strip()
    name, _, split = wanted.removeprefix("hf:").partition(":")
    on_disk = not wanted.startswith("hf:") and any(Path(one).expanduser().exists() for one in (wanted, name))
    if on_disk or wanted in ("", STANDARD_INPUT) or wanted.startswith("bundled:"):
        return
    if not _is_on_hub(wanted, name):
        raise _missing(wanted)
    check_hub(name, split or "train")


def _read(reference: str, encoding: str) -> Content:
    if not reference:
        raise DataError(say("the data reference is empty; give a file, a hub data set hf:NAME or bundled:NAME"))
    if reference.startswith("bundled:"):
        return Content(*read_bundled(reference.removeprefix("bundled:")))
    if reference == STANDARD_INPUT:
        return read_standard_input(encoding)
    if not reference.startswith("hf:"):
        path = Path(reference).expanduser()
        if path.is_dir():
            return read_text_folder(path, encoding) if is_text_folder(path) else Content(*read_saved(path, "train"))
        if path.exists():
            check_regular(path)
            return read_file(path, encoding)
    name, _, split = reference.removeprefix("hf:").partition(":")
    path = Path(name).expanduser()
    if not reference.startswith("hf:") and split and path.exists():
        return Content(*read_saved(path, split)) if path.is_dir() else read_file(path, encoding, split)
    if _is_on_hub(reference, name):
        return Content(*read_hub(name, split or "train"))
    raise _missing(reference)


def _missing(reference: str) -> DataError:
    return DataError(
        say(
            "there is no file or folder {path}{hint}; a data set on the hub is written hf:NAME or org/name",
            path=reference,
            hint=nearest(reference, [f"bundled:{bundle}" for bundle in read_bundles("tunedeck.data")]),
        )
    )


def _is_on_hub(reference: str, name: str) -> bool:
    if reference.startswith("hf:"):
        return HUB_ID_OR_NAME.fullmatch(name) is not None
    return HUB_ID.fullmatch(name) is not None and not name.startswith((".", "~")) and not is_known(Path(name))
