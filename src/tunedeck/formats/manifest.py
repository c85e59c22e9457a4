"""tunedeck.json: what the ecosystem's folders lack — the base's fingerprint, the task, metrics and what they cost."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.core.syntax import json_reason
from tunedeck.formats.centroids import Centroids
from tunedeck.formats.confidence import Confidence
from tunedeck.formats.files import read_text
from tunedeck.formats.probe import Probe

FILE = "tunedeck.json"
_RECORDED = ("tunedeck", "torch", "transformers")


class BaseRecord(BaseModel):
    """The base model an adapter was trained on."""

    model_config = ConfigDict(frozen=True)
    reference: str
    fingerprint: str | None = None
    quantize: str | None = None
    """Quantization of the base during training; the adapter fits the unquantized base as well."""


class DataRecord(BaseModel):
    """The data an adapter was trained on."""

    model_config = ConfigDict(frozen=True)
    source: str
    sha256: str
    examples: int
    text_column: str | None = None


class Manifest(BaseModel):
    """The content of tunedeck.json."""

    model_config = ConfigDict(frozen=True)
    format: int = 1
    base: BaseRecord
    task: dict[str, Any]
    method: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    data: DataRecord | None = None
    measurement: dict[str, Any] | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    probe: Probe | None = None
    confidence: Confidence | None = None
    centroids: Centroids | None = None


def versions() -> dict[str, str]:
    """Return the versions of the libraries that shape an adapter."""
    return {name: _version(name) for name in _RECORDED}


@cache
def _version(name: str) -> str:
    return version(name)  # which reads files


def check_folder(folder: Path) -> None:
    """Raise AdapterFileError where there is no such folder."""
    if not folder.is_dir():
        raise AdapterFileError(say("there is no adapter folder {path}", path=folder))


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in an adapter folder, None where there is none; AdapterFileError where it is damaged."""
    file = folder / FILE
    if not file.exists():
        return None
    text = read_text(file)
    try:
        manifest = Manifest.model_validate(json.loads(text))
    except (ValueError, ValidationError, RecursionError) as error:
        reason = json_reason(error).replace("\n", " ")
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=reason)) from error
    if manifest.format != 1:
        raise AdapterFileError(
            say("{path} has format {number}, this version reads 1; update tunedeck", path=file, number=manifest.format)
        )
    return manifest
