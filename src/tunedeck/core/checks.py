"""Check arguments before work begins: allowed values, hub ids, installed packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from tunedeck.core.errors import ConfigError, TunedeckError
from tunedeck.core.i18n import listing, nearest, say

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_ID_OR_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""OWNER/NAME of a model or a data set on a hub; some old ones have a name only."""


def one_of(name: str, value: str | None, allowed: Iterable[str]) -> str:
    """Return the value, if it is one of those allowed; else ConfigError that names the option or setting and the
    nearest one.
    """
    known = tuple(allowed)
    if value is None or value not in known:
        raise ConfigError(
            say("{name} must be one of {allowed}, got {value!r}", name=name, allowed=listing(known), value=value)
            + nearest(str(value), known)
        )
    return value


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported; it is not imported."""
    return find_spec(package) is not None


def require(
    feature: str,
    packages: Sequence[str],
    install: str,
    *,
    otherwise: str = "",
    error: type[TunedeckError] = ConfigError,
) -> None:
    """Raise `error` if a package that a feature needs is missing; `install` is what pip is given, `otherwise` another
    way out.
    """
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        text = say(
            "{feature} needs the package {packages}; run: pip install {install}",
            feature=feature,
            packages=listing(missing),
            install=install,
        )
        raise error(f"{text}; {otherwise}" if otherwise else text)
