"""Methods and tasks that other packages add with entry points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlugIn:
    """An entry point of another package, and why its object cannot be used; None where it can."""

    name: str
    package: str
    version: str | None
    error: str | None = None


def load_plug_ins(
    points: Iterable[EntryPoint],
    what: str,
    built_in: Mapping[str, T],
    check: Callable[[str, T, Mapping[str, T]], None],
    load: Callable[[EntryPoint], Any] = EntryPoint.load,
) -> tuple[dict[str, T], list[PlugIn]]:
    """Return the built-in objects with those of the entry points, by name, and a record of each entry point.

    One that fails is warned of and does not stop the others. `what` is the word for such an object in messages. `check`
    is given the entry point's name, its object and all objects so far, and raises ConfigError for one that cannot be
    used. `load` makes the object of an entry point.
    """
    known = dict(built_in)
    plug_ins: list[PlugIn] = []
    for point in points:
        package, version = (point.value, None) if point.dist is None else (point.dist.name, point.dist.version)
        error = None
        try:
            found = load(point)
            check(point.name, found, known)
            known[point.name] = found
        except Exception as raised:  # another package's module may raise anything
            error = cannot_be_used(what, point.name, package, raised)
            warnings.warn(error, stacklevel=3)
        plug_ins.append(PlugIn(point.name, package, version, error))
    return known, plug_ins


def cannot_be_used(what: str, name: str, package: str, raised: Exception) -> str:
    """Return the message for another package's object that raised an error when it was imported or checked."""
    return say(
        "the {what} {name!r} of the package {package} cannot be used: {reason}; update or uninstall that package",
        what=what,
        name=name,
        package=package,
        reason=str(raised) if isinstance(raised, ConfigError) else f"{type(raised).__name__}: {raised}",
    )
