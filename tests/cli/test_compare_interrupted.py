"""A comparison that was broken off goes on with the run under way, exactly."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models
from support.command_line import Command
from support.forked_command import Forked


def stopped_after_a_checkpoint(asked: list[str], run: Path, how: signal.Signals, everyone: bool) -> tuple[int, str]:
    """A real comparison that gets a signal after a first checkpoint: it alone, or its child, too, as at a terminal."""
    process = Forked(asked, run.parents[3] / "said.txt")
    deadline, events = time.monotonic() + 120, run / "events.jsonl"
    while not (events.exists() and '"checkpoint"' in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    (os.killpg if everyone else os.kill)(process.pid, how)
    left, said = process.wait()
    assert (
        not (run / "metrics.json").exists() or json.loads((run / "metrics.json").read_text())["stopped"] != "finished"
    )
    return left, said


def curve(run: Path) -> list[dict[str, Any]]:
    """Every step and evaluation, without the time."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**event, "at_s": 0} for event in events if event["event"] in ("step", "eval")]


def asked_for(words: Path, out: Path) -> list[str]:
    """Return a comparison of one entry, long enough to be stopped on its way."""
    model = tiny_models.folder_of("bert", "classifier")
    budget = ["--max-steps", "150", "--set", "training.eval_steps=40", "--set", "training.checkpoint_every=7"]
    place = ["--dtype", "float32", "--out", str(out)]
    return ["compare", "--model", model, "--data", str(words), "--methods", "lora", *budget, *place]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other numbers of threads round otherwise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "everyone", "code", "stopped"),
    [(signal.SIGINT, True, 130, "interrupted"), (signal.SIGTERM, False, 143, "terminated")],
    ids=["Ctrl-C", "terminated alone"],
)
def test_a_signal_stops_the_run_under_way_and_the_comparison_says_how_to_go_on(
    how: signal.Signals, everyone: bool, code: int, stopped: str, words: Path, tmp_path: Path
) -> None:
    run = tmp_path / "c" / "runs" / "lora" / "seed-0"
    left, said = stopped_after_a_checkpoint(asked_for(words, tmp_path / "c"), run, how, everyone)
    assert left == code
    assert "run the same command again to resume" in said
    assert json.loads((run / "metrics.json").read_text())["stopped"] == stopped
    assert any((run / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_run_that_was_broken_off_goes_on_to_the_end_it_would_have_had(
    tunedeck: Command, words: Path, tmp_path: Path
) -> None:
    run = tmp_path / "c" / "runs" / "lora" / "seed-0"
    asked = asked_for(words, tmp_path / "c")
    left, said = stopped_after_a_checkpoint(asked, run, signal.SIGKILL, everyone=True)
    assert left == -signal.SIGKILL
    assert "run the same command again to resume" not in said
    again = tunedeck(*asked)
    assert again.code == 0, again.err
    assert f"$ tunedeck train --resume {run}" in again.err
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    marks = [event["event"] for event in events if event["event"] in ("start", "resume", "end")]
    assert marks == ["start", "resume", "end"]
    assert next(event["step"] for event in events if event["event"] == "resume") >= 7
    assert tunedeck("train", run.with_suffix(".yaml"), "--out", tmp_path / "alone").code == 0
    assert curve(run) == curve(tmp_path / "alone")
