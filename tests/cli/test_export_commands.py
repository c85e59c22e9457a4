"""export merge and export onnx from a trained folder, as a person would type them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command


@pytest.fixture
def adapter(trained: Callable[..., Path], words: Path) -> Path:
    model = ("--model", tiny_models.folder_of("bert", "classifier"), "--dtype", "float32")
    return trained("found", *model, "--data", words, "--max-steps", 3) / "adapter"


def test_merging_says_how_far_the_folder_is_from_the_adapter(tunedeck: Command, adapter: Path, tmp_path: Path) -> None:
    said = tunedeck("export", "merge", "--adapter", adapter, "--out", tmp_path / "merged")
    assert said.code == 0, said.err
    assert "in float32; read back, its answers differ from the adapter's by" in said.err
    again = tunedeck("export", "merge", "--adapter", adapter, "--out", tmp_path / "merged", "--json")
    assert (again.code, "is not empty" in again.err) == (2, True)


def test_onnx_is_measured_beside_torch(tunedeck: Command, adapter: Path, words: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    flags = ("--int8", "--data", words, "--max-examples", 12, "--json")
    said = tunedeck("export", "onnx", "--adapter", adapter, "--out", tmp_path / "onnx", *flags)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    sides = {row["name"]: row for row in found["measured"]}
    assert list(sides) == ["torch float32", "torch bfloat16", "ONNX float32", "ONNX int8"]
    assert sides["ONNX float32"]["metrics"] == pytest.approx(sides["torch float32"]["metrics"], abs=1e-4)
    assert all(row["latency_ms"] > 0 and row["texts_per_s"] > 0 for row in sides.values())
    assert found["difference"]["max_abs"] < 1e-4
    assert (tmp_path / "onnx" / "run.py").exists()


def test_onnx_speaks_to_people_and_several_adapters_want_multi(
    tunedeck: Command, adapter: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    two = ("export", "onnx", "--adapter", adapter, "--adapter", adapter)
    refused = tunedeck(*two, "--out", tmp_path / "onnx")
    assert (refused.code, "pass --multi-adapter" in refused.err) == (2, True)
    said = tunedeck(*two, "--multi-adapter", "--out", tmp_path / "onnx")
    assert said.code == 0, said.err
    assert "for 2 adapters" in said.err
    assert "--adapter found" in said.err
    assert {file.name for file in (tmp_path / "onnx" / "adapters").iterdir()} == {
        "found.onnx_adapter",
        "found-2.onnx_adapter",
    }
