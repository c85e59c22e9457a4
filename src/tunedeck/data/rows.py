"""Hold the result of reading a source: named columns, rows and notes."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Columns: TypeAlias = tuple[str, ...]
Rows: TypeAlias = list[dict[str, object]]


class Content(NamedTuple):
    """Columns and rows of a source; `notes` say in a line each what a user should know of how it was read."""

    columns: Columns
    rows: Rows
    notes: tuple[str, ...] = ()
    named: bool = True
    """Whether the source names its columns."""
