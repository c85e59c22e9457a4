"""A spreadsheet (.xlsx) of one sheet, written row by row: the parts of ECMA-376 that every program asks for.

Texts are inline strings, so that nothing in them is taken for a formula, a date or a number.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say

MOST_ROWS, MOST_CHARACTERS = 1_048_576, 32_767
"""The most rows of a sheet and characters of a cell."""
AppendRows = Callable[[Iterable[str], Sequence[Sequence[object]]], None]
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
    f'ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets><sheet name="Sheet1" sheetId="1" '
    'r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ufffe\uffff\ud800-\udfff]|_(?=x[0-9A-Fa-f]{4}_)")
"""Characters that XML cannot hold, and underscores that would be taken for the escape of one."""


@contextmanager
def sheet_writer(path: Path) -> Iterator[AppendRows]:
    """Yield a function that appends rows of cells; the names of the columns come before the first.

    Raises DataError for more rows or longer texts than a sheet can have.
    """
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _PARTS.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>' + content)
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write(f'<?xml version="1.0" encoding="UTF-8"?><worksheet xmlns="{_MAIN}"><sheetData>'.encode())

            def append(columns: Iterable[str], rows: Sequence[Sequence[object]]) -> None:
                nonlocal count
                for cells in [[*columns], *rows] if count == 0 and rows else rows:
                    count += 1
                    if count > MOST_ROWS:
                        raise DataError(
                            say("a spreadsheet has at most {most} rows; write .csv instead", most=MOST_ROWS)
                        )
                    sheet.write(f"<row>{''.join(_cell(one, count) for one in cells)}</row>".encode())

            yield append
            sheet.write(b"</sheetData></worksheet>")


def _cell(value: object, row: int) -> str:
    if value is None or value == "":
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, (int, float)) and abs(value) < 1e15:  # beyond, a spreadsheet keeps no whole number exactly
        return f"<c><v>{value!r}</v></c>"
    text = str(value)
    if len(text) > MOST_CHARACTERS:
        raise DataError(
            say(
                "row {row} has a text of {count} characters, a cell of a spreadsheet holds {most}; write .csv instead",
                row=row - 1,
                count=len(text),
                most=MOST_CHARACTERS,
            )
        )
    written = _UNWRITABLE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(written, quote=False)}</t></is></c>'
