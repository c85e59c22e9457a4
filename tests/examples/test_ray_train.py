"""The example with Ray Train follows the curve of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import labelled_words, tiny_models

SCRIPT = Path(__file__).parents[2] / "examples" / "ray_train.py"


def curve(folder: Path) -> list[float]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["loss"] for event in events if event["event"] in ("step", "eval")]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray[train]")
def test_two_workers_of_ray_follow_the_curve_of_one_process(tmp_path: Path) -> None:
    words = labelled_words.write_csv(tmp_path / "words.csv", labelled_words.rows(120))
    run = tmp_path / "run.yaml"
    run.write_text(
        f"model: {tiny_models.folder_of('bert', 'classifier')}\ndata: {{train: {words}}}\ndtype: float32\n"
        "training: {max_steps: 8, batch_size: 8, eval_steps: 3, learning_rate: 0.01}\n",
        encoding="utf-8",
    )
    for command in (
        ["-m", "tunedeck", "train", run, "--out", tmp_path / "one"],
        [SCRIPT, run, "--out", tmp_path / "ray"],
    ):
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert curve(tmp_path / "ray") == pytest.approx(curve(tmp_path / "one"), abs=1e-4)
