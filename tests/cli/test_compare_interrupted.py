"""A comparison that was broken off goes on with the run under way, exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models

Command = Callable[..., Any]


def stopped_after_a_checkpoint(asked: list[str], run: Path, how: signal.Signals, everyone: bool) -> tuple[int, str]:
    """A real comparison that gets a signal after a first checkpoint: it alone, or its child, too, as at a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tunedeck", *asked],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline, events = time.monotonic() + 120, run / "events.jsonl"
    while not (events.exists() and '"checkpoint"' in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    (os.killpg if everyone else os.kill)(process.pid, how)
    _, said = process.communicate()
    assert (
        not (run / "metrics.json").exists() or json.loads((run / "metrics.json").read_text())["stopped"] != "finished"
    )
    return process.returncode, said


def curve(run: Path) -> list[dict[str, Any]]:
    """Every step and evaluation, without the time."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**event, "at_s": 0} for event in events if event["event"] in ("step", "eval")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "everyone", "code"),
    [(signal.SIGKILL, True, -9), (signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["killed", "Ctrl-C", "terminated alone"],
)
def test_a_run_that_was_broken_off_goes_on_to_the_end_it_would_have_had(
    how: signal.Signals,
    everyone: bool,
    code: int,
    tunedeck: Command,
    words: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other numbers of threads round otherwise
    asked = [
        "compare",
        "--model",
        tiny_models.folder_of("bert", "classifier"),
        "--data",
        str(words),
        "--methods",
        "lora",
        "--max-steps",
        "150",
        "--dtype",
        "float32",
        "--set",
        "training.eval_steps=40",
        "--set",
        "training.checkpoint_every=7",
        "--out",
        str(tmp_path / "c"),
    ]
    run = tmp_path / "c" / "runs" / "lora" / "seed-0"
    left, said = stopped_after_a_checkpoint(asked, run, how, everyone)
    assert left == code
    assert ("the same command goes on from there" in said) is (how is not signal.SIGKILL)
    again = tunedeck(*asked)
    assert again.code == 0, again.err
    assert f"$ tunedeck train --resume {run}" in again.err
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] in ("start", "resume", "end")] == [
        "start",
        "resume",
        "end",
    ]
    assert next(event["step"] for event in events if event["event"] == "resume") >= 7
    assert tunedeck("train", run.with_suffix(".yaml"), "--out", tmp_path / "alone").code == 0
    assert curve(run) == curve(tmp_path / "alone")
