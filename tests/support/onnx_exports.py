"""ONNX exports of tiny classifiers that several test files read: torch takes seconds to trace a graph."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import tunedeck as td
from support import tiny_models
from tunedeck.export.onnx.multi import save_onnx_multi
from tunedeck.export.onnx.save import OnnxExport, save_onnx

SHARING = ("two", "eight", "head")
"""The adapters of `multi_adapter`; they differ in rank, targets, scaling and labels."""

_HOME = tempfile.TemporaryDirectory(prefix="tunedeck-onnx-")


@cache
def deck() -> td.Deck:
    """Return the deck of all exports; remove what you add."""
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "prompt", td.PromptTuningConfig(3), labels=("no", "yes"), seed=2)
    tiny_models.add_stirred(deck, "two", td.LoraConfig(r=2, target_modules=("query", "value")))
    tiny_models.add_stirred(
        deck, "eight", td.LoraConfig(r=8, target_modules="all-linear", use_rslora=True), labels=tuple("abcde"), seed=3
    )
    tiny_models.add_stirred(deck, "head", td.FullConfig("head"), labels=("no", "yes"), seed=4)
    return deck


@cache
def prompt() -> tuple[Path, OnnxExport]:
    """Return the folder of `prompt`, in float32 and int8, and what its export said; write nothing there."""
    folder = Path(_HOME.name) / "prompt"
    return folder, save_onnx(deck(), "prompt", folder, int8=True)


@cache
def multi_adapter() -> Path:
    """Return the folder of the graph that SHARING share, in float32 and int8; write nothing there."""
    folder = Path(_HOME.name) / "multi-adapter"
    found = save_onnx_multi(deck(), SHARING, folder, int8=True)
    assert max(one.max_abs for one in found.differences.values()) < 1e-4
    return folder
