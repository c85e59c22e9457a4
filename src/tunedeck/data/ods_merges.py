"""Cells of an ods file that are merged downwards."""

from __future__ import annotations

import io
import zipfile
from typing import TypeAlias
from xml.etree import ElementTree

Merged: TypeAlias = list[tuple[tuple[int, int], tuple[int, int]]]
"""The first and the last cell of each area, as row and column counted from 0."""
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"


def merged_in_ods(content: bytes, sheet: str) -> Merged:
    """Return the areas of a sheet that span several rows; ValueError where the XML is damaged or not there."""
    merged: Merged = []
    inside, row, column = False, 0, 0
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open("content.xml") as stream:
            for event, element in ElementTree.iterparse(stream, ("start", "end")):
                kind, starts = element.tag.removeprefix(_TABLE), event == "start"
                if kind == "table":
                    inside, row = starts and element.get(_TABLE + "name") == sheet, 0
                elif kind == "table-row":
                    row, column = (row if starts else row + _count(element, "number-rows-repeated")), 0
                    if not starts:
                        element.clear()
                elif kind in ("table-cell", "covered-table-cell") and not starts:
                    down, right = _count(element, "number-rows-spanned"), _count(element, "number-columns-spanned")
                    if inside and down > 1:
                        merged.append(((row, column), (row + down - 1, column + right - 1)))
                    column += _count(element, "number-columns-repeated")
    except (ElementTree.ParseError, KeyError) as error:
        raise ValueError(str(error)) from error
    return merged


def _count(element: ElementTree.Element, attribute: str) -> int:
    return int(element.get(_TABLE + attribute, "1"))
