"""Text files that begin with a YAML header between lines of three hyphens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.files import read_text
from tunedeck.data.rows import Columns, Rows

_DOCUMENT = re.compile(r"---\n(.*?)\n---[ \t]*(?:\n(.*))?\Z", re.DOTALL)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML built without libyaml has only the slow one
_FAMILY = re.compile(r"[^-_.]+")


def read_documents(
    paths: Iterable[Path], columns: Mapping[str, str], skip: Mapping[str, Any], meanings: Mapping[str, str]
) -> tuple[Columns, Rows]:
    """Return documents whose label has a meaning, one row each.

    `columns` names the header key of each column, `skip` the header values that leave a document out: a value, or
    `!value` for any other. Besides them: `text` with single spaces, `meaning` of the label, and `family`, the file name
    up to its first separator. Raises DataError for a file without a header.
    """
    rows: Rows = []
    for path in paths:
        found = _DOCUMENT.match(read_text(path, "utf-8").replace("\r\n", "\n"))
        if found is None:
            raise DataError(say("{path} does not begin with a header between two lines of ---", path=path))
        header, text = yaml.load(found[1], _LOADER), " ".join((found[2] or "").split())
        row: dict[str, object] = {column: str(header.get(key, "")) for column, key in columns.items()}
        if not text or row["label"] not in meanings or any(_skipped(header, key, skip[key]) for key in skip):
            continue
        family = _FAMILY.match(path.name)
        row |= {"text": text, "meaning": meanings[str(row["label"])], "family": family[0] if family else path.name}
        rows.append(row)
    return (*columns, "text", "meaning", "family"), rows


def _skipped(header: Mapping[str, Any], key: str, value: object) -> bool:
    if key not in header:
        return False
    if isinstance(value, str) and value.startswith("!"):
        return str(header[key]) != value[1:]
    return bool(header[key] == value)
