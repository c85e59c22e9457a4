"""An adapter between disk and deck, whatever format it came in, and safe reading of tensor files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.messages import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.formats.manifest import Manifest
from tunedeck.methods.base import MethodConfig


@dataclass(frozen=True, slots=True)
class ModelNames:
    """How the modules of the model at hand are called, which file formats need to name tensors."""

    prefix: str
    spec: ModelSpec | None
    model_class: str
    model_type: str
    num_layers: int
    num_attention_heads: int

    def in_model(self, path: str) -> str:
        """A path with the base's prefix, whether the file has it or not."""
        return path if not self.prefix or path.startswith(f"{self.prefix}.") else f"{self.prefix}.{path}"


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter's content under our own names: `<layer name>.<parameter>` and `<head module>.<parameter>`."""

    config: MethodConfig
    tensors: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    labels: tuple[str, ...] | None
    base_reference: str | None
    manifest: Manifest | None


def read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; AdapterFileError when it is damaged or is something else."""
    with file.open("rb") as opened:
        start = opened.read(9)
    if start[8:] != b"{" and start.startswith((b"PK", b"\x80")):
        raise AdapterFileError(
            say(
                "{path} is a pickle, not safetensors, and is not opened: it could run code; save it as safetensors",
                path=file,
            )
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(
            say("{path} is damaged or cut short: {reason}; copy or train it again", path=file, reason=error)
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; AdapterFileError when the file holds anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=error)) from error
    if not isinstance(value, dict):
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason="not a JSON object"))
    return value
