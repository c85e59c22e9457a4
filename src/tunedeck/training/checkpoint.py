"""Checkpoints of a run: what they hold, to the last bit, and their folders on disk.

A checkpoint on disk is complete or absent, verified when it is read, and only the newest few are kept.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch

from tunedeck.core.errors import AdapterFileError, StorageError, TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.storage import file_sha256, replacing_folder, sweep
from tunedeck.deck.adapter import Adapter
from tunedeck.formats.tensors import read_safetensors, write_safetensors
from tunedeck.training.state import RunState

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
        """Return the newest checkpoint's folder; None when there is none."""
        return next(iter(self._folders()), None)

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whole or not at all, then remove those that are too many; StorageError when the disk
        refuses.
        """
        with replacing_folder(self._folder / f"step-{checkpoint.step:08}") as staging:
            for group, tensors in checkpoint.tensors.items():
                write_safetensors(staging / f"{group}.safetensors", tensors)
            (staging / STATE).write_text(json.dumps({"run": self.run, **checkpoint.state}), encoding="utf-8")
            (staging / CHECKSUMS).write_text(json.dumps(_sums(staging), indent=2), encoding="utf-8")
        for old in self._folders()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def read(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None when there is none at all; a damaged one is skipped with a
        warning.

        Raises TrainingError when every checkpoint is damaged.
        """
        if self._folder.exists():
            sweep(self._folder)
        folders = self._folders()
        for folder in folders:
            try:
                return _read(folder)
            except (AdapterFileError, StorageError) as error:
                warnings.warn(say("a damaged checkpoint is skipped: {reason}", reason=error), stacklevel=2)
        if folders:
            raise TrainingError(
                say("every checkpoint in {path} is damaged; start the run again with --overwrite", path=self._folder)
            )
        return None

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Add to an error that ends the run inside the block the checkpoint to return to."""
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
    """Return a checkpoint, its files checked; StorageError or AdapterFileError when it is damaged."""
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
    """Return the sha256 of every file but the list of them itself."""
    return {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.name != CHECKSUMS}


def adapter_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the adapter's parameters, head included, detached and shared with it."""
    return {name: parameter.detach() for name, parameter in adapter.named_parameters()}


def fill_adapter(adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the adapter the values of `adapter_tensors`."""
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            parameter.copy_(tensors[name])


def captured(
    adapter: Adapter,
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    state: RunState,
    values: Mapping[str, Any],
) -> Checkpoint:
    """Return the state at the end of a step, `values` included; its tensors are shared with the live objects, not
    copied.

    Raises TrainingError when a weight is no longer a number.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in adapter.parameters()):
        raise TrainingError(
            say("the weights are no longer numbers after step {step}; lower the learning rate", step=state.steps)
        )
    tensors, numbers = optimizer_state(optimizer)
    groups = {"adapter": adapter_tensors(adapter), "best": best, "optimizer": tensors}
    return Checkpoint(state.steps, groups, {"outcome": asdict(state), "optimizer": numbers, **values})


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return per parameter in order, `<number>.<name>`: tensors, and plain numbers.

    Tensors that parameters share, as the code books of 8-bit states, are kept for the first of them; the others'
    entries among the numbers name it.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    first: dict[int, str] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            key = f"{index}.{name}"
            if not isinstance(value, torch.Tensor):
                numbers[key] = value
            elif id(value) in first:
                numbers[key] = first[id(value)]
            else:
                tensors[key] = value
                first[id(value)] = key
    return tensors, numbers


def fill_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> None:
    """Give a fresh optimizer over the same parameters the state of `optimizer_state`."""
    parameters = _parameters(optimizer)
    own = {key: tensor.to(parameters[int(key.partition(".")[0])].device) for key, tensor in tensors.items()}
    shared = {key: own[value] for key, value in numbers.items() if isinstance(value, str)}
    for key, value in {**numbers, **own, **shared}.items():
        index, _, name = key.partition(".")
        optimizer.state[parameters[int(index)]][name] = value


def random_state() -> dict[str, Any]:
    """Return the states of all random numbers that a step may draw, as JSON values: torch's on the CPU and the GPU,
    Python's, numpy's.
    """
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state())
    return {
        "torch": _hex(torch.get_rng_state()),
        "cuda": _hex(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Draw on from a state of `random_state`."""
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _tensor(digits: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(digits)), dtype=torch.uint8)
