"""An adapter between disk and deck, whatever format it came in, and safe reading of tensor files."""

from __future__ import annotations

import errno
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

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
    linears_outside_layers: tuple[str, ...]
    """Paths of the linear layers that short target names must not reach: pooler, head, output layer."""

    def in_model(self, path: str) -> str:
        """A path with the base's prefix, whether the file has it or not; without it where the model is the base alone."""
        if not self.prefix and self.spec is not None:
            return path.removeprefix(f"{self.spec.prefix}.")
        whole = not self.prefix or path.startswith(f"{self.prefix}.") or path in self.linears_outside_layers
        return path if whole else f"{self.prefix}.{path}"

    def head_module(self, tensor: str) -> str:
        """The module of a head that owns a tensor: a child of the model, or the owner itself where it lies in the base."""
        inside = bool(self.prefix) and tensor.startswith(f"{self.prefix}.")
        return tensor.rpartition(".")[0] if inside else tensor.split(".")[0]


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
    start = _first_bytes(file)
    if start[8:] != b"{" and start.startswith((b"PK", b"\x80")):
        raise AdapterFileError(
            say(
                "{path} is a pickle, not safetensors, and is not opened: it could run code; save it as safetensors",
                path=file,
            )
        )
    try:
        return load(file.read_bytes())  # safetensors 0.8 leaks two objects a tensor where it opens the file itself
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(
            say("{path} is damaged or cut short: {reason}; copy or train it again", path=file, reason=error)
        ) from error


def write_safetensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as PEFT does; OSError when the disk refuses, which safetensors tells as an error of its own."""
    try:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number.group(1)) if number else errno.EIO, str(error)) from error


def write_bin(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors with torch.save; OSError when the disk refuses, which torch tells as an error of its own."""
    buffer = io.BytesIO()
    torch.save({name: t.cpu() for name, t in tensors.items()}, buffer)
    file.write_bytes(buffer.getbuffer())


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; AdapterFileError when the file holds anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=error)) from error
    if not isinstance(value, dict):
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason="not a JSON object"))
    return value


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(9)
    except OSError as error:
        raise AdapterFileError(
            say("cannot read {path}: {reason}", path=file, reason=error.strerror or error)
        ) from error
