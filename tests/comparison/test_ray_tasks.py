"""Races and comparisons on a Ray cluster of two local workers; skipped where Ray is not installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models

import tunedeck as td
from tunedeck.core.errors import ConfigError, TrainingError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs tunedeck[ray]")
CANDIDATES = "lora:r=2,4:learning_rate=1e-4,3e-2;ia3"


@pytest.fixture(scope="module")
def two_workers() -> Iterator[str]:
    """Ray with two processors on this machine."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # on a busy machine others would leave them no time
        ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
        yield "local"
        ray.shutdown()


def values(words: Path, **training: Any) -> dict[str, Any]:
    model = tiny_models.folder_of("bert", "classifier")
    return {
        "model": model,
        "data": {"train": str(words)},
        "dtype": "float32",
        "training": {"batch_size": 8, **training},
    }


def events(run: Path) -> list[dict[str, Any]]:
    """Every step and evaluation, without the time."""
    found = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**event, "at_s": 0} for event in found if event["event"] in ("step", "eval")]


@needs_ray
def test_a_race_on_two_workers_comes_to_the_end_of_a_race_here(words: Path, tmp_path: Path, two_workers: str) -> None:
    def race(name: str, ray: str | None) -> td.Race:
        run = values(words, max_steps=27)
        return td.race(run, candidates=CANDIDATES, out=tmp_path / name, ray=ray, progress=False)

    here, spread = race("here", None), race("ray", two_workers)
    told = [[(one.name, one.status, [p.quality for p in one.points]) for one in r.candidates] for r in (here, spread)]
    assert told[0] == told[1]
    assert spread.verdict.metrics == here.verdict.metrics
    for folder in (tmp_path / "here" / "candidates").iterdir():
        assert events(tmp_path / "ray" / "candidates" / folder.name) == events(folder)


@needs_ray
def test_a_comparison_on_two_workers_has_the_runs_of_one_here(words: Path, tmp_path: Path, two_workers: str) -> None:
    for name, ray in (("here", None), ("ray", two_workers)):
        td.compare(values(words, max_steps=8), methods="lora,ia3", out=tmp_path / name, ray=ray, progress=False)
    for folder in (tmp_path / "here" / "runs").glob("*/seed-0"):
        own = tmp_path / "ray" / "runs" / folder.parent.name / "seed-0"
        assert events(own) == events(folder)
        assert (own / "adapter" / "adapter_model.safetensors").exists()


@needs_ray
def test_a_run_that_fails_on_a_worker_says_why(words: Path, tmp_path: Path, two_workers: str) -> None:
    run, methods = values(words, max_steps=8, max_grad_norm=None), "lora:learning_rate=1e30"
    with pytest.raises(TrainingError, match=r"lora.*ended with code"):
        td.compare(run, methods=methods, out=tmp_path / "c", ray=two_workers, progress=False)


@needs_ray
@pytest.mark.parametrize("command", ["race", "compare"])
def test_ctrl_c_leaves_checkpoints_from_which_the_same_command_goes_on(
    command: str, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands are stopped after a first checkpoint of their first run, and end as if they had not been."""
    what = ["--candidates", "lora:learning_rate=1e-3,2e-3"] if command == "race" else ["--methods", "lora,ia3"]
    model = ["--model", tiny_models.folder_of("bert", "classifier"), "--dtype", "float32"]
    steps = ["--max-steps", "300", "--set", "training.checkpoint_every=7"]
    monkeypatch.setenv("RAY_worker_niceness", "0")
    asked = [sys.executable, "-m", "tunedeck", command, "--data", str(words), *model, *steps, *what, "--ray", "local"]
    process = subprocess.Popen([*asked, "--out", str(tmp_path / "r")], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any((tmp_path / "r").glob("**/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "run the same command again to resume" in said
    resumed = subprocess.run([*asked, "--out", str(tmp_path / "r")], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    subprocess.run([*asked[:-2], "--out", str(tmp_path / "here")], check=True, capture_output=True)
    for file in (tmp_path / "here").glob("**/events.jsonl"):
        own = tmp_path / "r" / file.parent.relative_to(tmp_path / "here")
        assert [one for one in events(own) if one["event"] == "step"] == [
            one for one in events(file.parent) if one["event"] == "step"
        ]


def test_without_ray_or_a_cluster_it_is_refused(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunedeck.core.checks.is_installed", lambda package: package != "ray")
    with pytest.raises(ConfigError, match=r"--ray needs the package ray; run: pip install 'tunedeck\[ray\]'"):
        td.compare(values(words), methods="lora", out=tmp_path / "c", ray="local", progress=False)
