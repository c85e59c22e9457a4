"""Serving: one base, thousands of adapters, mixed in one batch; no HTTP here. Public names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunedeck.generation.sequence import Sequence
    from tunedeck.serving.bounds import Bounds
    from tunedeck.serving.engine import Engine, Limits
    from tunedeck.serving.factory import open_engine
    from tunedeck.serving.request import Request
    from tunedeck.serving.workers.generate import GenerationLimits

_HOME = {
    "Bounds": "tunedeck.serving.bounds",
    "Engine": "tunedeck.serving.engine",
    "GenerationLimits": "tunedeck.serving.workers.generate",
    "Limits": "tunedeck.serving.engine",
    "Request": "tunedeck.serving.request",
    "Sequence": "tunedeck.generation.sequence",
    "open_engine": "tunedeck.serving.factory",
}
__all__ = ["Bounds", "Engine", "GenerationLimits", "Limits", "Request", "Sequence", "open_engine"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
