"""Rows of the bundled data sets, read as the `read` entry of bundled.toml says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from tunedeck.core.bundle import fetch, read_bundles
from tunedeck.core.errors import DataError
from tunedeck.core.messages import listing, nearest, say
from tunedeck.core.toml import parse_toml
from tunedeck.data.files import Columns, Rows, read_separated, read_text


def read_bundled(name: str) -> tuple[Columns, Rows]:
    """Rows of a bundled data set, fetched if need be.

    Raises DataError for an unknown name and StorageError when fetching fails.
    """
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
    folder = fetch(bundles[name])
    how = parse_toml(files("tunedeck.data").joinpath("bundled.toml").read_text(encoding="utf-8"))[name]["read"]
    if "csv" in how:
        return _read_renamed(folder / how["csv"], how["columns"])
    return _read_lines({folder / file: label for file, label in how["lines"].items()})


def _read_renamed(path: Path, sources: dict[str, str]) -> tuple[Columns, Rows]:
    text = path.read_bytes().decode("ascii", errors="ignore")
    _, rows = read_separated(path, text, ",")
    return tuple(sources), [{column: row[source] for column, source in sources.items()} for row in rows]


def _read_lines(labels: dict[Path, str]) -> tuple[Columns, Rows]:
    rows: Rows = [
        {"text": line.strip(), "label": label}
        for path, label in labels.items()
        for line in read_text(path, "utf-8").split("\n")
        if line.strip()
    ]
    return ("text", "label"), rows
