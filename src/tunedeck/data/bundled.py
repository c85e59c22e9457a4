"""Rows of the bundled data sets, read as the `read` entry of bundled.toml says."""

from __future__ import annotations

import html
import tarfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunedeck.core.bundle import fetch, read_bundles
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.toml import parse_toml
from tunedeck.data.files import read_text
from tunedeck.data.front_matter import read_documents
from tunedeck.data.held_out import divided
from tunedeck.data.intents import read_intents
from tunedeck.data.obo import read_terms
from tunedeck.data.rows import Columns, Rows
from tunedeck.data.segmented import read_segmented
from tunedeck.data.separated import read_separated

SPLITS = ("train", "test")


def read_bundled(reference: str) -> tuple[Columns, Rows]:
    """Return rows of a bundled data set, fetched if need be; `NAME:train` and `NAME:test` are its two sides where it
    has any.

    Raises DataError for an unknown name or side and StorageError when fetching fails.
    """
    name, _, side = reference.partition(":")
    bundles = read_bundles("tunedeck.data")
    if name not in bundles:
        raise DataError(
            say(
                "no bundled data set {name!r}{hint}; there are: {names}",
                name=name,
                hint=nearest(name, bundles),
                names=listing(bundles),
            )
        )
    entry = parse_toml(files("tunedeck.data").joinpath("bundled.toml").read_text(encoding="utf-8"))[name]
    how = entry.get("split")
    if side and (how is None or side not in SPLITS):
        allowed = [name, *(f"{name}:{known}" for known in SPLITS if how)]
        raise DataError(
            say("there is no bundled:{reference}; there are: {names}", reference=reference, names=listing(allowed))
        )
    columns, rows = _read(fetch(bundles[name]), entry["read"])
    if side:
        rows = divided(rows, how["by"], how.get("unlike"), how.get("within"))[SPLITS.index(side)]
    return _with_questions(columns, rows, entry.get("ask", {}))


def _read(folder: Path, how: Mapping[str, Any]) -> tuple[Columns, Rows]:
    if "csv" in how:
        return _read_renamed(folder / how["csv"], how["columns"])
    if "obo" in how:
        return read_terms(folder / how["obo"], how["plain"])
    if "intents" in how:
        return read_intents(folder / how["intents"], how["values"])
    if "segmented" in how:
        return read_segmented(folder / how["segmented"], how["kinds"])
    if "ratings" in how:
        return _read_ratings(folder / how["ratings"], how["file"])
    if "documents" in how:
        return read_documents(sorted(folder.glob(how["documents"])), how["columns"], how["skip"], how["meanings"])
    return _read_lines({folder / file: label for file, label in how["lines"].items()})


def _read_ratings(archive: Path, name: str) -> tuple[Columns, Rows]:
    """Return the texts and ratings of a file in an archive, with a number, a rating and a text in each line."""
    with tarfile.open(archive, "r:gz") as files_in_it:
        content = files_in_it.extractfile(name)
        assert content is not None
        lines = content.read().decode("utf-8").splitlines()
    cells = [line.split("\t", 2) for line in lines if line.strip()]
    return ("text", "rating"), [{"text": html.unescape(text.strip()), "rating": float(own)} for _, own, text in cells]


def _with_questions(columns: Columns, rows: Rows, ask: Mapping[str, str]) -> tuple[Columns, Rows]:
    """Return the rows with a question and an answer made of their columns, `{text:.600}` being the first 600
    characters.
    """
    return (*columns, *ask), [
        {**row, **{column: pattern.format_map(row) for column, pattern in ask.items()}} for row in rows
    ]


def _read_renamed(path: Path, sources: dict[str, str]) -> tuple[Columns, Rows]:
    text = path.read_bytes().decode("ascii", errors="ignore")
    rows = read_separated(path, text, ",").rows
    return tuple(sources), [{column: row[source] for column, source in sources.items()} for row in rows]


def _read_lines(labels: dict[Path, str]) -> tuple[Columns, Rows]:
    rows: Rows = [
        {"text": line.strip(), "label": label}
        for path, label in labels.items()
        for line in read_text(path, "utf-8").split("\n")
        if line.strip()
    ]
    return ("text", "label"), rows
