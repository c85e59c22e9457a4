"""A pickle in an adapter folder never runs, wherever it stands and whatever it calls itself."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.saved_by_kind import QUERY, WEIGHTS, refused, saved

from tunedeck.core.errors import AdapterFileError


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_the_bomb_works(tmp_path: Path) -> None:
    torch.save({"x": Bomb(tmp_path / "exploded")}, tmp_path / "bomb")
    torch.load(tmp_path / "bomb", weights_only=False)
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("form", ["torch", "old torch", "plain pickle"])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("lora", "adapter_model.safetensors"),
        ("lora", "adapter_model.bin"),
        ("prompt", "adapter_model.safetensors"),
        ("full", "model.safetensors"),
        ("bottleneck", "pytorch_adapter.bin"),
        ("bottleneck", "pytorch_model_head.bin"),
        ("bottleneck", "adapter.safetensors"),
    ],
)
def test_a_hostile_pickle_does_not_run(kind: str, file: str, form: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    if "head" not in file:
        (folder / WEIGHTS[kind]).unlink()
    content = {QUERY: Bomb(tmp_path / "exploded")}
    if form == "plain pickle":
        (folder / file).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / file, _use_new_zipfile_serialization=form == "torch")
    message = "is damaged" if file.startswith("pytorch") else "is a pickle, not safetensors, and is not opened"
    refused(folder, AdapterFileError, message)
    assert not (tmp_path / "exploded").exists()


def test_a_bin_file_must_hold_tensors(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bottleneck")
    for content in ([1, 2], {"x": 3}, torch.zeros(2)):
        torch.save(content, folder / "pytorch_adapter.bin")
        refused(folder, AdapterFileError, "damaged: not a table of tensors")
