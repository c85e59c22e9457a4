"""The encoding of a text file: named by the user, or detected."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say

AUTO = "auto"
UTF_8 = "utf-8"
SAMPLE_BYTES = 1 << 16
"""The number of bytes from which the encoding of a file that is not UTF-8 is detected."""
_MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMON_LEADS = {"gb18030": (0xB0, 0xD7), "big5": (0xA4, 0xC6), "cp932": (0x88, 0x97), "cp949": (0xB0, 0xC8)}
"""Lead bytes of the everyday characters: level 1 of each standard, or its Hangul."""
_CANDIDATES = [*_COMMON_LEADS, "cp1252", "cp1251"]


def decode(path: Path, content: bytes, encoding: str) -> tuple[str, str]:
    """Return a text without its byte order mark, and the encoding it is in; "auto" detects it.

    Raises DataError for an unknown encoding, for bytes that do not fit it, and for a binary file.
    """
    found = encoding if encoding != AUTO else detect(path, content)
    try:
        return content.decode(found).removeprefix("\ufeff"), found
    except LookupError as error:
        raise DataError(
            say("unknown encoding {encoding!r}; common ones are utf-8, gb18030, utf-16, cp1252", encoding=encoding)
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            say(
                "{path} is not {encoding}: byte {offset} in line {line} does not fit; {hint}",
                path=path,
                encoding=found,
                offset=error.start,
                line=content.count(b"\n", 0, error.start) + 1,
                hint=_hint(content),
            )
        ) from error


def detect(path: Path, content: bytes) -> str:
    """Return the encoding of a text file; DataError for a binary file."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if marked is not None:
        return marked
    if b"\0" in content[:SAMPLE_BYTES]:
        return _wide(path, content[:SAMPLE_BYTES])
    if _fits(content, UTF_8):
        return UTF_8
    return _of_one_byte_or_two(content)


def _wide(path: Path, sample: bytes) -> str:
    """UTF-16 without a byte order mark has its zeros in every other place: those of ASCII characters."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > 0 and others == 0 and _fits(sample[: len(sample) // 2 * 2], name):
            return name
    raise DataError(say("{path} is a binary file, not text; save it as CSV, xlsx or Parquet", path=path))


def _of_one_byte_or_two(content: bytes) -> str:
    """Return the encoding in which charset-normalizer can read a sample and most of whose characters are everyday
    ones.
    """
    from charset_normalizer import from_bytes

    sample = content[:SAMPLE_BYTES]
    sample = sample[: sample.rfind(b"\n") + 1] or sample  # not the half of a character
    readable = [match.encoding for match in from_bytes(sample, cp_isolation=_CANDIDATES)]
    fitting = [name for name in _CANDIDATES if _fits(content, name)]
    shares = {name: _everyday_share(sample, name) + 0.05 * (name in readable) for name in fitting}
    return max(shares, key=lambda name: shares[name], default="latin-1")


def _everyday_share(sample: bytes, encoding: str) -> float:
    """Return the share of the characters above ASCII that everyday text in this encoding consists of."""
    text = sample.decode(encoding, errors="ignore")
    above = [place for place, character in enumerate(text) if character > "\x7f"]
    return sum(_is_everyday(text, place, encoding) for place in above) / max(1, len(above))


def _is_everyday(text: str, place: int, encoding: str) -> bool:
    character = text[place]
    if encoding in _COMMON_LEADS:
        lowest, highest = _COMMON_LEADS[encoding]
        if encoding == "cp932" and "\u3040" <= character <= "\u30ff":
            return True
        encoded = character.encode(encoding)
        if encoding == "gb18030" and encoded[1] < 0xA1:  # not in GB 2312
            return False
        return lowest <= encoded[0] <= highest or character in "，。！？、；：（）“”「」…"
    beside = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
    if encoding == "cp1251":  # Cyrillic letters are adjacent
        return "\u0400" <= character <= "\u045f" and any("\u0400" <= one <= "\u045f" for one in beside)
    return character in "“”‘’–—…€°§«»" or (character.isalpha() and any(one.isascii() for one in beside))


def _fits(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _hint(content: bytes) -> str:
    for encoding in _hinted(content):
        if _fits(content, encoding):
            return say("it reads as {encoding}: pass --encoding {encoding}", encoding=encoding)
    return say("save it as UTF-8, or pass its encoding with --encoding")


def _hinted(content: bytes) -> Iterator[str]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield "utf-16"
    else:
        yield from (UTF_8, "gb18030")
