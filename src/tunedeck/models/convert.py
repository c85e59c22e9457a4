"""Bundled models whose weights are rewritten after the download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunedeck.core.bundle import Bundle, fetch


def fetch_model(bundle: Bundle) -> Path:
    """Bring a bundled model into the cache, in a form that transformers loads, and return its folder."""
    return fetch(bundle, _converter(bundle.convert) if bundle.convert else None)


def _converter(name: str) -> Callable[[Path], None]:
    """Return what `convert` of bundled.toml names; a model is found without loading numpy and torch for it."""
    from tunedeck.models.e5s1 import convert_e5s1

    return {"e5s1": convert_e5s1}[name]
