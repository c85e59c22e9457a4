"""Files whose content is of another kind than their name says."""

from __future__ import annotations

import re
from pathlib import Path

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.sheets import SPREADSHEETS

_SAMPLE_BYTES = 1 << 12
_FIRST_BYTES = {b"PK\3\4": ".xlsx", b"\xd0\xcf\x11\xe0": ".xls", b"PAR1": ".parquet", b"\x1f\x8b": ".gz"}
_WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|meta|table|style|div)\b", re.IGNORECASE)
_WEB_ARCHIVE = re.compile(rb"\s*MIME-Version:", re.IGNORECASE)
_XML_SPREADSHEET = b"urn:schemas-microsoft-com:office:spreadsheet"


def check_kind(path: Path, content: bytes, suffix: str) -> None:
    """Raise DataError for a web page, and where the first bytes of a file are those of another kind than its ending."""
    start = content[:_SAMPLE_BYTES]
    if _WEB_PAGE.match(start) or _WEB_ARCHIVE.match(start):
        raise DataError(
            say(
                "{path} is a web page (HTML), not a table; open it in Excel or LibreOffice and save it as xlsx or CSV",
                path=path,
            )
        )
    found = next((kind for first, kind in _FIRST_BYTES.items() if start.startswith(first)), None)
    if suffix not in SPREADSHEETS:
        if found is not None and found != suffix:
            raise DataError(
                say("{path} is a file of the kind {kind}; rename it so that it ends in {kind}", path=path, kind=found)
            )
    elif _XML_SPREADSHEET in start:
        raise DataError(
            say("{path} is an XML spreadsheet of Excel 2003; open it and save it as xlsx or CSV", path=path)
        )
    elif found is None and b"\0" not in start:
        raise DataError(say("{path} holds text, not a spreadsheet; rename it so that it ends in .csv", path=path))
