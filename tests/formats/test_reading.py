"""Reading tensors."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tunedeck.formats.tensors import read_safetensors


def test_reading_again_and_again_leaves_nothing_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "adapter_model.safetensors"
    save_file({f"layer.{number}.weight": torch.ones(2, 2) for number in range(20)}, file)
    read_safetensors(file)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(100):
        read_safetensors(file)
    gc.collect()
    assert sys.getallocatedblocks() - before < 1000
