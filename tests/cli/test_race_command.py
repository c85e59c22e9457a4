"""`tunedeck race` says what `td.race` finds."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command
from support.forked_command import Forked

from tunedeck.comparison.race.log import FILE


def test_the_command_prints_candidates_the_winner_and_the_folders(
    tunedeck: Command, words: Path, tmp_path: Path
) -> None:
    model = tiny_models.folder_of("bert", "classifier")
    asked = ["race", words, "--model", model, "--max-steps", 9, "--dtype", "float32", "--out", tmp_path / "r"]
    said = tunedeck(*asked, "--candidates", "lora:r=2:learning_rate=1e-2,1e-4")
    assert said.code == 0, said.err
    assert "lora learning_rate=0.01" in said.out.replace("\n", " ")
    assert "untouched examples" in said.err
    assert f"the report is in {tmp_path / 'r' / 'report.html'}" in said.err
    again = tunedeck(*asked, "--candidates", "lora:r=2:learning_rate=1e-2,1e-4", "--json")
    assert json.loads(again.out) == json.loads((tmp_path / "r" / "race.json").read_text(encoding="utf-8"))
    assert "rung 1" not in again.err  # nothing is trained again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--candidates", "lorra"), "methods: 'lorra' is not a method (did you mean 'lora'?)"),
        (("--until", "soon"), "until must be one of stable, clear, got 'soon'"),
        (("--minutes", "0"), "minutes must be above 0, got 0"),
        (("--budget", "2"), "--budget needs to know what an hour costs"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: tuple[str, ...], said: str, tunedeck: Command, words: Path, tmp_path: Path
) -> None:
    found = tunedeck("race", words, "--model", "any", "--out", tmp_path, *arguments)
    assert found.code == 2
    assert said in found.err


@pytest.mark.slow
def test_a_race_that_is_killed_goes_on(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    model = tiny_models.folder_of("bert", "classifier")
    asked = ["race", str(words), "--model", model, "--max-steps", "216", "--batch-size", "4", "--dtype", "float32"]
    asked += ["--out", str(tmp_path / "r"), "--candidates", "lora:r=2,4:learning_rate=1e-2,1e-4"]
    process = Forked(asked, tmp_path / "said.txt")
    log, end = tmp_path / "r" / FILE, time.monotonic() + 300
    while not log.exists() or log.read_text(encoding="utf-8").count("\n") < 3:
        assert time.monotonic() < end
        assert not process.ended
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    known = log.read_text(encoding="utf-8").splitlines()[:3]
    said = tunedeck(*asked)
    assert said.code == 0, said.err
    assert log.read_text(encoding="utf-8").splitlines()[:3] == known
    assert said.err.count("rung 1 of 4") <= 2
