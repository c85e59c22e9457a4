"""Rows out of spreadsheets: xlsx, xls and ods, as people make them by hand."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, PasswordError, SheetTypeEnum, ZipError

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.core.units import format_bytes
from tunedeck.data.header import SAMPLE_ROWS, cell_text, column_names, find_head, head_notes
from tunedeck.data.ods_merges import Merged, merged_in_ods
from tunedeck.data.rows import Content

SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
MOST_CELLS = 100_000_000
"""The most cells between the first and the last cell of a sheet; one stray cell can make a sheet larger than memory."""
MOST_BYTES = 4 << 30
"""The largest size of the unpacked parts of a spreadsheet."""
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_FILE_PASS = re.compile(rb"\x09\x08[\x08\x10]\0\0[\x05\x06]\x05\0.{4}(?:.{8})?(?:\x86\0\0\0)?\x2f\0", re.DOTALL)
"""Matches the records BOF and FilePass ([MS-XLS] 2.4.117) with which an xls file that has a password begins."""
_MANIFEST = "META-INF/manifest.xml"
_CELL = re.compile(rb'<c\b[^>]*?\br="([A-Z]{1,3})(\d{1,7})"')
_SPREAD_CELL = re.compile(rb'number-columns-repeated="(\d{4,})"[^>]*office:value-type')
_CHUNK = 1 << 20

SheetRow: TypeAlias = list[object]


def read_sheet(path: Path, content: bytes, name: str | None = None) -> Content:
    """Read the named sheet of a workbook, else its first one with rows; DataError for what cannot be read.

    Cells that were merged downwards below the header all have the value; whole numbers have no decimal point; columns
    and rows without anything are left out.
    """
    _check_size(path, content)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        sheets = [one.name for one in book.sheets_metadata if one.typ == SheetTypeEnum.WorkSheet]
        chosen, rows, others = _chosen(path, book, sheets, name)
        is_ods = content.startswith(b"PK") and b"content.xml" in content
        merged = merged_in_ods(content, chosen.name) if is_ods else chosen.merged_cell_ranges
    except PasswordError as error:
        raise _protected(path) from error
    except (CalamineError, ZipError, OSError, ValueError) as error:
        if content.startswith(_OLE) and (_ENCRYPTED_PACKAGE in content or _FILE_PASS.search(content)):
            raise _protected(path) from error
        reason = str(error)
        if "detect file format" in reason:
            reason = say("it is damaged, or the document of another program")
        raise _unreadable(path, reason) from error
    head = find_head([row for _, row in rows[:SAMPLE_ROWS]])
    body = rows[head.titles :]
    if not body:
        return Content((), [])
    width = max(len(row) for _, row in body)
    cells = [row + [None] * (width - len(row)) for _, row in body]
    _fill_down(cells[head.has_names :], [number for number, _ in body[head.has_names :]], merged)
    kept = [place for place in range(width) if any(row[place] is not None for row in cells)]
    cells = [[row[place] for place in kept] for row in cells]
    columns = column_names(path, cells[0] if head.has_names else [""] * len(kept))
    values = [dict(zip(columns, row, strict=True)) for row in cells[head.has_names :]]
    notes = (*_sheet_note(path, chosen.name, others), *head_notes(path, head, columns))
    return Content(columns, values, notes, head.has_names)


def _chosen(
    path: Path, book: CalamineWorkbook, sheets: list[str], name: str | None
) -> tuple[CalamineSheet, list[tuple[int, SheetRow]], list[str]]:
    """Return the sheet to read with its rows that hold something, and the names of the others."""
    if name is not None and name not in sheets:
        raise DataError(
            say("{path} has no sheet {name!r}; it has: {sheets}", path=path, name=name, sheets=listing(sheets))
        )
    for wanted in [name] if name is not None else sheets:
        sheet = book.get_sheet_by_name(wanted)
        rows = list(_rows(sheet))
        if rows:
            return sheet, rows, [other for other in sheets if other != wanted] if name is None else []
    raise DataError(say("{path} is empty", path=path))


def _rows(sheet: CalamineSheet) -> Iterator[tuple[int, SheetRow]]:
    """Yield rows that hold something, with their numbers in the sheet."""
    for number, cells in enumerate(sheet.to_python(skip_empty_area=False)):
        row = [_value(cell) for cell in cells]
        if any(cell is not None for cell in row):
            yield number, row


def _value(cell: object) -> object:
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if isinstance(cell, str):
        return cell if cell.strip() else None
    return cell if isinstance(cell, (int, float)) else cell_text(cell)


def _fill_down(cells: list[SheetRow], numbers: list[int], merged: Merged | None) -> None:
    place_of = {number: place for place, number in enumerate(numbers)}
    for (first, column), (last, _) in merged or ():
        if last == first or first not in place_of or column >= len(cells[0]):
            continue
        value = cells[place_of[first]][column]
        for number in range(first + 1, min(last, numbers[-1]) + 1):
            if number in place_of:
                cells[place_of[number]][column] = value


def _sheet_note(path: Path, name: str, others: list[str]) -> tuple[str, ...]:
    if not others:
        return ()
    return (
        say(
            "{path}: the sheet {name!r} is read; for another write {path}:NAME, one of: {others}",
            path=path,
            name=name,
            others=listing(others),
        ),
    )


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        say("cannot read {path} as a spreadsheet: {reason}; save it again or as CSV", path=path, reason=reason)
    )


def _protected(path: Path) -> DataError:
    return DataError(
        say("{path} is protected by a password; open it, save it without one, and give that file", path=path)
    )


def _check_size(path: Path, content: bytes) -> None:
    """Refuse what would fill the memory before calamine reads it, which does not survive that."""
    if not content.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            if unpacked > MOST_BYTES:
                raise _too_large(path, format_bytes(unpacked))
            if _MANIFEST in archive.namelist() and b"encryption-data" in archive.read(_MANIFEST):
                raise _protected(path)
            for part in archive.namelist():
                if part.startswith("xl/worksheets/") or part == "content.xml":
                    _check_cells(path, archive, part)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise _unreadable(path, say("it is damaged or cut short")) from error


def _check_cells(path: Path, archive: zipfile.ZipFile, part: str) -> None:
    columns = rows = 0
    with archive.open(part) as stream:
        rest = b""
        while chunk := stream.read(_CHUNK):
            text = rest + chunk
            if part == "content.xml":
                if any(int(count) > 10_000 for count in _SPREAD_CELL.findall(text)):
                    raise _too_large(path, say("a cell that is repeated over a whole row"))
            else:
                for letters, number in _CELL.findall(text):
                    columns, rows = max(columns, _column_number(letters)), max(rows, int(number))
            rest = text[-200:]
    if columns * rows > MOST_CELLS:
        raise _too_large(path, say("{rows} rows of {columns} columns", rows=rows, columns=columns))


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number


def _too_large(path: Path, size: str) -> DataError:
    return DataError(
        say(
            "{path} is too large for a spreadsheet ({size}); delete the cells far outside the table, or save it as "
            "CSV or Parquet",
            path=path,
            size=size,
        )
    )
