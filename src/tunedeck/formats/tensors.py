"""Represent an adapter between disk and deck independent of its format, and read tensor files safely."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.syntax import json_reason
from tunedeck.formats.files import open_regular, read_bytes, read_text
from tunedeck.formats.manifest import Manifest
from tunedeck.methods.base import MethodConfig

_LONGEST_HEADER = 16 << 20
POOLED_HEAD = "linear"
"""The name of a head that reads pooled states: it is not a module of the model, unlike all other heads."""


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
        """Return a path with the base's prefix, whether the file has it or not; without it where the model is the base
        alone.
        """
        if not self.prefix and self.spec is not None:
            return path.removeprefix(f"{self.spec.prefix}.")
        whole = not self.prefix or path.startswith(f"{self.prefix}.") or path in self.linears_outside_layers
        return path if whole else f"{self.prefix}.{path}"

    def head_module(self, tensor: str) -> str:
        """Return the module of a head that owns a tensor: a child of the model, or the owner itself where it is in the
        base.
        """
        inside = bool(self.prefix) and tensor.startswith(f"{self.prefix}.")
        return tensor.rpartition(".")[0] if inside else tensor.split(".")[0]


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter's content under our names: `<layer name>.<parameter>` and `<head module>.<parameter>`."""

    config: MethodConfig
    tensors: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    labels: tuple[str, ...] | None
    base_reference: str | None
    manifest: Manifest | None

    @property
    def pooled(self) -> bool:
        """Tell whether its head reads pooled states, which no other library's classifier does."""
        return f"{POOLED_HEAD}.weight" in self.head


def read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    """Return tensors of a safetensors file; AdapterFileError when it is damaged or is something else."""
    content = read_bytes(file)
    if content[8:9] != b"{" and content.startswith((b"PK", b"\x80")):
        raise AdapterFileError(
            say(
                "{path} is a pickle, not safetensors, and is not opened: it could run code; save it as safetensors",
                path=file,
            )
        )
    try:
        return load(content)  # safetensors 0.8 leaks two objects a tensor where it opens the file itself
    except SafetensorError as error:
        raise _damaged(file, error) from error


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file's tensors, from its header; AdapterFileError when it is damaged.

    The header is 8 bytes of length, then JSON (huggingface.co/docs/safetensors); 16 MiB of it are read at most. Read
    here and not by `safe_open`, which lets no other thread run while it waits for the file.
    """
    with open_regular(file) as opened:
        try:
            length = int.from_bytes(opened.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError(say("its header is said to have {length} bytes", length=length))
            header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            return {name: _shape(told["shape"]) for name, told in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
            raise _damaged(file, error) from error


def torch_bytes(file: Path) -> int:
    """Return bytes that a file of `torch.save` takes once read, from its zip directory; AdapterFileError where they are
    more than the file's.

    torch compresses nothing, so that such a file was made to fill the memory. An older file, which is not a zip, counts
    by its size.
    """
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        try:
            if not zipfile.is_zipfile(opened):
                return size
            inside = sum(part.file_size for part in zipfile.ZipFile(opened).infolist())
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise _damaged(file, error) from error
    if inside > size:
        raise _damaged(
            file, ValueError(say("it has {size} bytes, but its header declares {inside}", size=size, inside=inside))
        )
    return inside


def write_safetensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as PEFT does; OSError on a disk error, for which safetensors has its own class."""
    try:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number.group(1)) if number else errno.EIO, str(error)) from error


def write_bin(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors with torch.save; OSError on a disk error, for which torch has its own class."""
    buffer = io.BytesIO()
    torch.save({name: t.cpu() for name, t in tensors.items()}, buffer)
    file.write_bytes(buffer.getbuffer())


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object; AdapterFileError when the file holds anything else."""
    text = read_text(file)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=json_reason(error))) from error
    if not isinstance(value, dict):
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=say("not a JSON object")))
    return value


def _shape(told: list[int]) -> tuple[int, ...]:
    if not all(isinstance(length, int) and length >= 0 for length in told):
        raise ValueError(say("{shape} is not a shape", shape=told))
    return tuple(told)


def _damaged(file: Path, reason: Exception) -> AdapterFileError:
    return AdapterFileError(
        say("{path} is damaged or cut short: {reason}; copy or train it again", path=file, reason=reason)
    )
