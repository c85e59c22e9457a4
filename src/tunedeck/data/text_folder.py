"""A folder of text files, sorted into a folder for each class."""

from __future__ import annotations

from pathlib import Path

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.core.system_reason import system_reason
from tunedeck.core.units import format_bytes
from tunedeck.data.encoding import AUTO, UTF_8, decode
from tunedeck.data.rows import Content, Rows


def is_text_folder(folder: Path) -> bool:
    """Tell whether there is a text file in one of its folders."""
    return any(folder.glob("*/*.txt"))


def read_text_folder(folder: Path, encoding: str) -> Content:
    """Read each .txt file as a text whose label is the name of its folder; files without text are left out.

    Raises DataError for a file that cannot be read.
    """
    rows: Rows = []
    encodings: set[str] = set()
    empty = 0
    for path in sorted(one for one in folder.glob("*/*.txt") if one.is_file()):
        try:
            text, found = decode(path, path.read_bytes(), encoding)
        except OSError as error:
            raise DataError(say("cannot read {path}: {reason}", path=path, reason=system_reason(error))) from error
        except MemoryError as error:
            size = format_bytes(path.stat().st_size)
            raise DataError(say("{path} ({size}) does not fit in memory; split it", path=path, size=size)) from error
        encodings.add(found)
        if text.strip():
            rows.append({"text": text.strip(), "label": path.parent.name, "file": path.name})
        else:
            empty += 1
    notes = []
    if encoding == AUTO and encodings - {UTF_8}:
        notes.append(
            say(
                "{path} is read as {encoding}; for another pass --encoding",
                path=folder,
                encoding=listing(sorted(encodings)),
            )
        )
    if empty:
        notes.append(say("{path}: {count} empty files are left out", path=folder, count=empty))
    return Content(("text", "label", "file"), rows, tuple(notes))
