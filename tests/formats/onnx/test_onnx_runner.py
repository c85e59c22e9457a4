"""run.py in an environment of its own, which has no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
from support import onnx_exports


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with onnxruntime and tokenizers alone."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place)
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted = [f"{name}=={version(name)}" for name in ("onnxruntime", "tokenizers")]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile", *wanted], check=True
    )
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0
    return python


def said(python: Path, folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(python), str(folder / "run.py"), *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.network
def test_the_runner_answers_with_labels_without_torch(bare_python: Path) -> None:
    deck, folder = onnx_exports.deck(), onnx_exports.prompt()[0]
    texts = ["w10 w20", "w5 w6 w7"]
    for typed, arguments in (("", texts), ("\n".join([*texts, ""]), [])):
        told = said(bare_python, folder, *arguments, typed=typed)
        assert told.returncode == 0, told.stderr
        rows = [json.loads(line) for line in told.stdout.splitlines()]
        for row, prediction in zip(rows, deck.predict(texts, "prompt"), strict=True):
            assert row["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-5)
    assert said(bare_python, folder, "--int8", "w10").returncode == 0
    empty = said(bare_python, folder)
    assert (empty.returncode, empty.stderr.startswith("error: there is no text")) == (1, True)


@pytest.mark.network
def test_adapters_are_switched_without_torch(bare_python: Path) -> None:
    deck, folder = onnx_exports.deck(), onnx_exports.multi_adapter()
    for name in ("two", "eight"):
        told = said(bare_python, folder, "--adapter", name, "w10 w20")
        (prediction,) = deck.predict(["w10 w20"], name)
        assert json.loads(told.stdout)["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-5)
    both = said(bare_python, folder, "--adapter", "two", "--adapter", "eight", "w10")
    assert (both.returncode, "cannot be active together" in both.stderr, "Traceback" in both.stderr) == (1, True, False)
