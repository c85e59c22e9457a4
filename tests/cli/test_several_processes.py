"""Two processes take the very steps of one, whether each holds the base whole or a half of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from tunedeck.formats.stored import read_safetensors

RUN = (
    "data: {{train: {words}}}\nmodel: {model}\nmethod: {method}\ndtype: float32\n"
    "training: {{max_steps: 14, batch_size: 7, accumulation: 2, eval_every: 5, learning_rate: 0.01, checkpoint_every: 4, {more}}}\n"
)


def two_processes(arguments: list[str], **environment: str) -> str:
    """What two processes print to standard error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tunedeck"]
    said = subprocess.run(
        [*command, "train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stderr


def curve(folder: Path) -> list[float]:
    """Every loss, of steps and of evaluations."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["loss"] for event in events if event["event"] in ("step", "eval")]


@pytest.mark.parametrize(
    ("method", "more", "environment"),
    [
        ("{kind: lora, r: 4, target_modules: all-linear}", "seed: 0", {}),
        (
            "{kind: lora, r: 4, target_modules: all-linear}",
            "seed: 0",
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
        ),
        (
            "{kind: bottleneck, name: double_seq_bn}",
            "checkpointing: true",
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
        ),
    ],
    ids=["whole", "sharded", "sharded-bottleneck"],
)
def test_two_processes_follow_the_curve_of_one(
    method: str, more: str, environment: dict[str, str], tunedeck: Callable[..., Any], words: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.yaml"
    model = tiny.folder_of("bert", "classifier")
    run.write_text(RUN.format(words=words, model=model, method=method, more=more), encoding="utf-8")
    assert tunedeck("train", run, "--out", tmp_path / "one").code == 0
    said = two_processes([str(run), "--out", str(tmp_path / "two")], **environment)
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-4)
    assert said.count("examples to train on") == 1
    one, two = (json.loads((tmp_path / name / "measurement.json").read_text()) for name in ("one", "two"))
    assert (two["steps"], two["padded_share"] < 0.9) == (one["steps"], True)
    if "lora" in method:
        whole, parts = (
            read_safetensors(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two")
        )
        assert max(tiny.difference(whole[name], parts[name]) for name in whole) < 1e-4
