"""Checkpoints of a run on disk: whole or not there, checked when read, and only the newest few of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tunedeck.core.errors import AdapterFileError, StorageError, TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder, sweep
from tunedeck.formats.tensors import read_safetensors, write_safetensors

STATE, CHECKSUMS = "state.json", "checksums.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run at the end of a step: groups of tensors by name, and plain JSON values."""

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


@final
class Checkpoints:
    """The checkpoints in a folder, `step-00000120` and so on; the newest `keep` of them stay.

    `run` says what they belong to; it is kept in each.
    """

    def __init__(self, folder: Path, keep: int, run: Mapping[str, Any]) -> None:
        self._folder = folder
        self._keep = keep
        self.run = run

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint's folder; None when there is none."""
        return next(iter(self._folders()), None)

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whole or not at all, then remove those that are too many; StorageError when the disk refuses."""
        with replacing_folder(self._folder / f"step-{checkpoint.step:08}") as staging:
            for group, tensors in checkpoint.tensors.items():
                write_safetensors(staging / f"{group}.safetensors", tensors)
            (staging / STATE).write_text(json.dumps({"run": self.run, **checkpoint.state}), encoding="utf-8")
            (staging / CHECKSUMS).write_text(json.dumps(_sums(staging), indent=2), encoding="utf-8")
        for old in self._folders()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def read(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, None when there is none at all; a damaged one is passed over with a warning.

        Raises TrainingError when every checkpoint is damaged.
        """
        if self._folder.exists():
            sweep(self._folder)
        folders = self._folders()
        for folder in folders:
            try:
                return _read(folder)
            except (AdapterFileError, StorageError) as error:
                warnings.warn(say("a checkpoint is passed over: {reason}", reason=error), stacklevel=2)
        if folders:
            raise TrainingError(
                say("every checkpoint in {path} is damaged; begin the run anew with --overwrite", path=self._folder)
            )
        return None

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """An error that ends the run inside the block names the checkpoint to go back to."""
        try:
            yield
        except (TrainingError, StorageError) as error:
            if self.newest is None:
                raise
            raise type(error)(
                say("{reason}. The last good checkpoint is {path}", reason=error, path=self.newest)
            ) from error

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"), reverse=True)


def _read(folder: Path) -> Checkpoint:
    """A checkpoint, its files checked; StorageError or AdapterFileError when it is damaged."""
    try:
        expected, found = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")), _sums(folder)
        if found != expected:
            raise StorageError(say("{path} is damaged: {reason}", path=folder, reason=say("its checksums differ")))
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(say("{path} is damaged: {reason}", path=folder, reason=error)) from error
    tensors = {file.stem: read_safetensors(file) for file in folder.glob("*.safetensors")}
    return Checkpoint(int(state["outcome"]["steps"]), tensors, state)


def _sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file but the list of them itself."""
    return {file.name: _sha256(file) for file in sorted(folder.iterdir()) if file.name != CHECKSUMS}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()
