"""A plan for this machine beside the run that it is for, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.labelled_words import rows, write_csv
from support.tiny_models import folder_of

import tunedeck as td


def test_on_an_uncalibrated_machine_the_memory_of_a_tiny_run_is_inside_its_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))  # without calibrations
    model, data = folder_of("bert", "classifier"), str(write_csv(tmp_path / "words.csv", rows(40)))
    plan = td.plan(model, data, epochs=1, methods="lora", micro_batch=8, gpus="this-machine", dtype="float32")
    command = ["--model", model, "--data", data, "--batch-size", "8", "--epochs", "1", "--dtype", "float32"]
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", "train", *command, "--out", str(tmp_path / "run"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    predicted = plan.rows[0].peak_device_bytes
    assert predicted.holds(json.loads(done.stdout)["peak_memory_bytes"])
    assert predicted.high < 2 * predicted.low
