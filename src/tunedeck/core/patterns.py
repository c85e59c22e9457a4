"""Regular expressions that come with settings and adapter folders, matched in a bounded time.

A few characters can keep Python's `re` busy for ever, and no other thread of the process runs meanwhile. `regex` lets
others run, stops in time, and understands the same expressions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import regex

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.i18n import say

_SECONDS = 0.5
_LONGEST = 10_000
_SHOWN = 100


@dataclass(slots=True)
class _Budget:
    allowed_s: float
    left_s: float


_budget: ContextVar[_Budget | None] = ContextVar("pattern_budget", default=None)


@contextmanager
def time_limit(seconds: float = _SECONDS) -> Iterator[None]:
    """Limit the seconds of computing that all matching inside the block may take together; an outer block decides for
    both.
    """
    if _budget.get() is not None:
        yield
        return
    token = _budget.set(_Budget(seconds, seconds))
    try:
        yield
    finally:
        _budget.reset(token)


def fullmatch(pattern: str, text: str) -> bool:
    """Tell whether a regular expression matches the whole text.

    Raises TargetError where it is none, ConfigError where it is longer than 10,000 characters or takes too long.
    """
    if len(pattern) > _LONGEST:
        raise ConfigError(
            say(
                "the pattern {pattern!r} has {length} characters; at most {limit} are allowed",
                pattern=_short(pattern),
                length=len(pattern),
                limit=_LONGEST,
            )
        )
    budget = _budget.get() or _Budget(_SECONDS, _SECONDS)
    began_s = time.thread_time()
    try:
        if budget.left_s <= 0:
            raise TimeoutError
        return regex.fullmatch(pattern, text, concurrent=True, timeout=budget.left_s) is not None
    except TimeoutError:
        budget.left_s = 0.0  # `regex` counts the seconds of all threads, this function those of its own
        raise ConfigError(
            say(
                "the pattern {pattern!r} takes more than {seconds} s to match; write a simpler one (the "
                "server's flag is --pattern-time)",
                pattern=_short(pattern),
                seconds=budget.allowed_s,
            )
        ) from None
    except (regex.error, RecursionError) as error:
        raise TargetError(
            say("{pattern!r} is not a regular expression: {reason}", pattern=_short(pattern), reason=error)
        ) from error
    finally:
        budget.left_s -= time.thread_time() - began_s


def _short(pattern: str) -> str:
    return pattern if len(pattern) <= _SHOWN else f"{pattern[:_SHOWN]}…"
