"""Personal data in texts, which a model may learn by heart: phone and identity numbers, e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}")
_CHINESE_MOBILE = re.compile(r"(?<![\d-])(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\d-])")
_OTHER_PHONE = re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ ()-]{0,2}\d){7,12}(?!\d)")
_CHINESE_ID = re.compile(
    r"(?<![\dA-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
)
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
    for kind, pattern, holds in _NUMBERS:
        for match in pattern.finditer(rest):
            if holds(match[0]):
                yield Personal(kind, mask(match[0]))
        rest = pattern.sub(" ", rest)


def is_identity_number(number: str) -> bool:
    """Return whether the last place of a Chinese identity number is its check digit (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _ID_WEIGHTS, strict=True))
    return _ID_CHECKS[total % 11] == number[17].upper()


def mask(text: str) -> str:
    """Return the first three and the last two characters, stars for the others."""
    return text[:3] + "*" * max(0, len(text) - 5) + text[-2:]


def _masked_email(address: str) -> str:
    name, _, host = address.partition("@")
    return name[0] + "***@" + host


def _any(text: str) -> bool:
    return True


_NUMBERS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("identity number", _CHINESE_ID, is_identity_number),
    ("phone number", _CHINESE_MOBILE, _any),
    ("phone number", _OTHER_PHONE, _any),
)
