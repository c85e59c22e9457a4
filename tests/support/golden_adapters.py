"""Adapters that PEFT and AdapterHub wrote (golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import tunedeck as td

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())


def golden_deck(case: str) -> td.Deck:
    base = GOLDEN / case / "base"
    architecture = json.loads((base / "config.json").read_text())["architectures"][0]
    return td.Deck.load(
        str(base), task=td.Generate() if architecture.endswith("CausalLM") else td.Classify(), dtype="float32"
    )
