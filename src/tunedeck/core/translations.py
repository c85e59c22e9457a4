"""The catalogues of translations, `locale/LANGUAGE/LC_MESSAGES/tunedeck.po`, read when a language is first asked for.

gettext reads compiled catalogues only; compiling here, in some milliseconds, leaves no second file to keep up to date.
"""

from __future__ import annotations

import gettext
import io
import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MAGIC = 0x950412DE
FOLDER = Path(__file__).parents[1] / "locale"


@cache
def translations(language: str) -> gettext.NullTranslations:
    """Return the catalogue of a language; English, whose texts are the keys, has none."""
    if language == "en":
        return gettext.NullTranslations()
    catalogue = _file(language).read_text(encoding="utf-8")
    return gettext.GNUTranslations(io.BytesIO(compiled(catalogue)))


@cache
def sources() -> dict[str, str]:
    """Return the English text behind each translation; of two texts with one translation, the first."""
    found: dict[str, str] = {}
    for folder in FOLDER.iterdir():
        for source, text in _entries(_file(folder.name).read_text(encoding="utf-8")):
            found.setdefault(text.decode(), source.decode())
    return found


def _file(language: str) -> Path:
    return FOLDER / language / "LC_MESSAGES" / "tunedeck.po"


def compiled(catalogue: str) -> bytes:
    """Compile the text of a `.po` file to the bytes of a `.mo` file (gettext manual, section 10.3)."""
    entries = sorted(_entries(catalogue))
    texts = [text for column in zip(*entries, strict=True) for text in column]
    offset, descriptors = 28 + 8 * len(texts), b""
    for text in texts:
        descriptors += struct.pack("<II", len(text), offset)
        offset += len(text) + 1
    head = struct.pack("<7I", MAGIC, 0, len(entries), 28, 28 + 8 * len(entries), 0, 0)
    return head + descriptors + b"".join(text + b"\0" for text in texts)


def _entries(catalogue: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield each translated text and its translation; the forms of a plural are joined by zero bytes."""
    for block in catalogue.split("\n\n"):
        source: list[str] = []
        translated: list[str] = []
        forms = source
        for line in block.splitlines():
            if line.startswith("#, fuzzy"):
                translated.clear()
                break
            if line.startswith("#") or not line:
                continue
            keyword, _, quoted = line.partition('"')
            if keyword:
                forms = translated if keyword.startswith("msgstr") else source
                forms.append("")
            forms[-1] += json.loads('"' + quoted)
        if any(translated):
            yield "\0".join(source).encode(), "\0".join(translated).encode()
