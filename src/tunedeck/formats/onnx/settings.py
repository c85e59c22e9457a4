"""The files of an ONNX export and its settings.json, for those that write it, patch it and serve it.

runner.py reads the same file by itself: it is copied into the export as run.py and imports nothing of Tunedeck.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunedeck.core.storage import write_json

FORMAT = 1
SETTINGS, TOKENIZER, RUNNER, WORDS = "settings.json", "tokenizer.json", "run.py", "tagging.py"
ADAPTERS, SUFFIX = "adapters", ".onnx_adapter"


def adapter_file(name: str) -> str:
    """Return where an adapter's tensors are, for a graph that takes several adapters."""
    return f"{ADAPTERS}/{name}{SUFFIX}"


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write settings.json whole or not at all."""
    write_json(folder / SETTINGS, {"format": FORMAT, **settings})
