"""What a command gave, run in this process as a person would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """Exit code and the two streams of one command."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]
