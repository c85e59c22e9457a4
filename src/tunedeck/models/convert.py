"""Bundled models whose weights are rewritten after the download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tunedeck.core.bundle import Bundle, fetch
from tunedeck.models.e5s1 import convert_e5s1

CONVERTERS: Mapping[str, Callable[[Path], None]] = {"e5s1": convert_e5s1}
"""By the name that bundled.toml gives in `convert`."""


def fetch_model(bundle: Bundle) -> Path:
    """Bring a bundled model into the cache, in a form that transformers loads, and return its folder."""
    return fetch(bundle, CONVERTERS[bundle.convert] if bundle.convert else None)
