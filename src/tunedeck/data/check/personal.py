"""Personal data in texts, which a model may learn by heart: phone and identity numbers, e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}")
_CHINESE_MOBILE = re.compile(r"(?<![\d-])(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\d-])")
_CHINESE_LANDLINE = re.compile(r"(?<![\d.-])\(?0(?:10|2\d|[3-9]\d{2})\)?[ -]?[2-8]\d{6,7}(?![\d-])")
_AMERICAN_PHONE = re.compile(
    r"(?<![\w.-])(?:\+?1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}(?![\w-])"
)
_OTHER_PHONE = re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ ()-]{0,2}\d){7,12}(?!\d)")
_CHINESE_ID = re.compile(
    r"(?<![\dA-Za-z])[1-9]\d{5}[ -]?(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[ -]?\d{3}[\dXx]"
    r"(?![\dA-Za-z])"
)
_AMERICAN_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
"""Social security numbers as they are written, with separators; area 000, 666 and 900 to 999, group 00 and serial 0000
are never given out (SSA, RM 10201.030).
"""
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"


class Personal(NamedTuple):
    """One finding: `kind` is "identity number", "phone number" or "e-mail"; `masked` does not give it away."""

    kind: str
    masked: str


def personal_data(text: str) -> Iterator[Personal]:
    """Yield the personal data in a text, each once by its first kind."""
    if "@" in text:
        yield from (Personal("e-mail", _masked_email(found)) for found in _EMAIL.findall(text))
    if sum(character.isdigit() for character in text) < 8:
        return
    rest = text
    for one in _NUMBERS:
        found = (match[0] for match in one.pattern.finditer(rest))
        yield from (Personal(one.kind, one.masked(number)) for number in found if one.holds(number))
        rest = one.pattern.sub(" ", rest)


def is_identity_number(number: str) -> bool:
    """Return whether the last place of a Chinese identity number is its check digit (GB 11643, ISO 7064 MOD 11-2).

    Spaces and hyphens between its parts do not count.
    """
    digits = number.replace(" ", "").replace("-", "")
    total = sum(int(digit) * weight for digit, weight in zip(digits[:17], _ID_WEIGHTS, strict=True))
    return _ID_CHECKS[total % 11] == digits[17].upper()


def mask(text: str) -> str:
    """Return the first three and the last two characters, stars for the others."""
    return text[:3] + "*" * max(0, len(text) - 5) + text[-2:]


def _last_two(text: str) -> str:
    return "*" * (len(text) - 2) + text[-2:]


def _masked_email(address: str) -> str:
    name, _, host = address.partition("@")
    return name[0] + "***@" + host


def _any(text: str) -> bool:
    return True


class _Number(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = _any
    masked: Callable[[str], str] = mask


_NUMBERS = (
    _Number("identity number", _CHINESE_ID, is_identity_number),
    _Number("identity number", _AMERICAN_SSN, masked=_last_two),
    _Number("phone number", _CHINESE_MOBILE),
    _Number("phone number", _CHINESE_LANDLINE),
    _Number("phone number", _AMERICAN_PHONE),
    _Number("phone number", _OTHER_PHONE),
)
