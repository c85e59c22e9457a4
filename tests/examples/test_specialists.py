"""The example of three specialists on one base runs from the run files to the mixed batch, in a shortened form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "specialists" / "run.py"


@pytest.mark.network
def test_three_specialists_of_three_kinds_are_trained_compared_and_mixed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--short", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [(one["name"], one["method"]) for one in report] == [
        ("sentiment", "bottleneck"),
        ("law", "lora"),
        ("medicine", "prompt_tuning"),
    ]
    for one in report:
        assert one["held_out"] == len(one["wanted"]) == len(one["adapter"]["texts"]) == len(one["base"]["texts"]) == 4
        assert 0 < one["size_bytes"] < 6e6
    assert any(one["adapter"]["texts"] != one["base"]["texts"] for one in report)  # so short a training moves little
    assert "One batch, three specialists and the bare base" in done.stdout
