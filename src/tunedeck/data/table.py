"""Rows with named columns, from wherever a data reference points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.bundle import read_bundles
from tunedeck.core.checks import HUB_ID, HUB_ID_OR_NAME
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import nearest, say
from tunedeck.data.bundled import read_bundled
from tunedeck.data.files import Columns, Rows, is_known, read_file
from tunedeck.data.hub import read_hub, read_saved


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a data source; every row has every column, None where the source has nothing."""

    source: str
    columns: Columns
    rows: Rows


def read_table(reference: str, encoding: str = "utf-8") -> Table:
    """Read a file, a saved `datasets` folder, a hub data set or a bundled one.

    References: a path ending in .csv, .tsv, .json, .jsonl or .parquet; a folder written by `save_to_disk`; `hf:NAME` or
    `org/name` on the hub; `bundled:NAME`. A folder or hub name may end in `:SPLIT` (train without it). What exists on
    disk is a path. Raises DataError; StorageError when a bundled data set cannot be fetched.
    """
    columns, rows = _read(reference.strip(), encoding)
    if not rows:
        raise DataError(say("{source} has a header or columns but no rows", source=reference))
    return Table(reference, columns, rows)


def _read(reference: str, encoding: str) -> tuple[Columns, Rows]:
    if not reference:
        raise DataError(say("the data reference is empty; give a file, a hub data set hf:NAME or bundled:NAME"))
    if reference.startswith("bundled:"):
        return read_bundled(reference.removeprefix("bundled:"))
    if not reference.startswith("hf:"):
        path = Path(reference).expanduser()
        if path.is_dir():
            return read_saved(path, "train")
        if path.exists():
            return read_file(path, encoding)
    name, _, split = reference.removeprefix("hf:").partition(":")
    folder = Path(name).expanduser()
    if not reference.startswith("hf:") and split and folder.is_dir():
        return read_saved(folder, split)
    if _is_on_hub(reference, name):
        return read_hub(name, split or "train")
    raise DataError(
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
