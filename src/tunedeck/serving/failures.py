"""Adapters that could not be loaded: the errors that clients get, and which wait until their files change."""

from __future__ import annotations

import os
from typing import final

from tunedeck.core.errors import (
    AdapterFileError,
    BaseMismatchError,
    TunedeckError,
    UnavailableError,
    UnsupportedKindError,
)
from tunedeck.core.i18n import say
from tunedeck.serving.repository import AdapterRepository

_LASTING = (AdapterFileError, BaseMismatchError, UnsupportedKindError)
"""Errors that persist until the files change."""


@final
class Failures:
    """Errors by adapter name, each with the signature of the files that caused it."""

    def __init__(self, repository: AdapterRepository) -> None:
        self._repository = repository
        self._failed: dict[str, tuple[object, TunedeckError]] = {}

    def check(self, name: str, seen: object) -> None:
        """Raise again what these files could not be loaded for; forget it where they have changed."""
        before, error = self._failed.get(name, (None, None))
        if error is not None and before == seen:
            raise type(error)(str(error))  # a new one: raised again and again, one error would collect every traceback
        self.forget(name)

    def remember(self, name: str, seen: object, error: TunedeckError) -> None:
        """Keep a lasting error; any other may be gone the next time."""
        if seen is not None and isinstance(error, _LASTING):
            self._failed[name] = (seen, error)

    def forget(self, name: str) -> None:
        """Let the name be tried again."""
        self._failed.pop(name, None)

    def translate(self, name: str, raised: Exception) -> TunedeckError:
        """Return the error that clients get: without paths on this machine; UnavailableError if the machine failed."""
        passing = _passing_cause(raised)
        if isinstance(raised, TunedeckError):
            text = str(raised)
        else:
            reason = raised.strerror if isinstance(raised, OSError) and raised.strerror else None
            reason = reason or f"{type(raised).__name__}: {raised}"
            text = say("adapter {name!r} cannot be read: {reason}", name=name, reason=reason)
        text = text.replace(f"{self._repository.folder}{os.sep}", "").replace(str(self._repository.folder), ".")
        if passing:
            return UnavailableError(text)
        return type(raised)(text) if isinstance(raised, TunedeckError) else AdapterFileError(text)


def _passing_cause(error: BaseException) -> bool:
    """Return whether the disk or the memory caused an error, and not the files themselves."""
    causes: BaseException | None = error
    while causes is not None:
        if isinstance(causes, OSError | MemoryError) or (
            isinstance(causes, RuntimeError) and "allocate" in str(causes)
        ):
            return True
        causes = causes.__cause__
    return False
