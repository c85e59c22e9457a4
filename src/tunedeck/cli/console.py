"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from tunedeck.core.console import tell as tell
from tunedeck.core.i18n import say
from tunedeck.core.units import format_bytes as format_bytes

if TYPE_CHECKING:
    from rich.console import Console

_WHOLE = 16
"""A word of up to this width, such as a number or a name, is not broken into lines of a column."""
_KEPT = 32
"""A first column below this width is not broken at all."""
_NARROW = 60
"""A terminal below this width shows long cells in lines rather than in a table."""


def print_json(value: Any) -> None:
    """Print a result for machines."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> None:
    """Print a result for people; columns from `numbers_from` on are numbers, set to the right.

    A terminal in whose columns words would be broken, or most cells folded, gets a line for each cell.
    """
    from rich.table import Table

    console = _console()
    if title:
        console.print(title, style="bold", soft_wrap=True)
    if rows and not _fits(columns, rows):
        _print_lines(console, columns, rows)
        return
    keep_first = max((cell_len(row[0]) for row in rows), default=0) < _KEPT
    table = Table()
    widest = [max(map(cell_len, own)) for own in zip(*rows, strict=True)] or [0] * len(columns)
    if sum(map(max, widest, map(cell_len, columns))) + 3 * len(columns) + 1 > console.width:
        columns = _broken(columns, widest)
    cells = zip(columns, *rows, strict=True)
    for index, (own, longest) in enumerate(zip(cells, _longest_words(columns, rows), strict=True)):
        table.add_column(
            own[0],
            justify="right" if index >= numbers_from else "left",
            overflow="fold",
            no_wrap=(keep_first and index == 0) or max(map(cell_len, own)) <= longest,  # Rich would break its words
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _console() -> Console:
    from rich.console import Console  # not for --help: it takes as long to load as Typer

    return Console(highlight=False, markup=False, emoji=False)


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the terminal is wide enough for the longest word of every column.

    A narrow one must also have room for half of the longest cells, so that they are not folded into many short lines.
    """
    cells = list(zip(columns, *rows, strict=True))
    whole = sum(max(cell_len(line) for cell in column for line in (cell.splitlines() or [""])) for column in cells)
    if _console().width < _NARROW and whole > 2 * _console().width:
        return False
    first = max(cell_len(row[0]) for row in rows)
    words = _longest_words(columns, rows)
    words[0] = first if first < _KEPT else words[0]
    return sum(words) + 3 * len(words) + 1 <= _console().width


def _print_lines(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as lines of a name and a value, which the terminal folds so that a value can be copied whole.

    A table of two columns holds such pairs already.
    """
    for row in rows:
        pairs = [(row[0], row[1])] if len(columns) == 2 else list(zip(columns, row, strict=True))
        for name, value in pairs:
            if "\n" in value:
                console.print(name + "\n  " + value.replace("\n", "\n  "), soft_wrap=True)
            elif value:
                console.print(say("{name}: {value}", name=name, value=value), soft_wrap=True)
            elif len(columns) == 2:
                console.print(name, soft_wrap=True)
        if len(columns) != 2:
            console.print()


def _longest_words(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the widths below which a word of each column would be broken; very long words are broken in any case."""
    cells = zip(columns, *rows, strict=True)
    return [max(min(cell_len(word), _WHOLE) for cell in column for word in (cell.split() or [""])) for column in cells]


def _broken(columns: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the names of columns, those longer than the cells with a line for each word."""
    return [
        name if cell_len(name) <= width else name.replace(" ", "\n")
        for name, width in zip(columns, widths, strict=True)
    ]


def print_tables(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a result as several tables if the terminal is narrow, each with the first column."""
    widths = [max(cell_len(text) for text in cells) for cells in zip(*rows, strict=True)]
    names = _broken(columns, widths)
    widths = [max(width, *map(cell_len, name.split("\n"))) + 3 for name, width in zip(names, widths, strict=True)]
    room = _console().width - widths[0] - 1
    parts: list[list[int]] = [[]]
    for column in range(1, len(columns)):
        if parts[-1] and sum(widths[one] for one in [*parts[-1], column]) > room:
            parts.append([])
        parts[-1].append(column)
    for part in parts:
        chosen = [0, *part]
        print_table(
            title if part is parts[0] else "",
            [names[one] for one in chosen],
            [[row[one] for one in chosen] for row in rows],
        )
