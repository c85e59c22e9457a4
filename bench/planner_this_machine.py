"""Predictions of `tunedeck plan --calibrate` against real steps at lengths and batch sizes that were not measured.

    python bench/planner_this_machine.py [--out PATH] [--models NAME ...] [--methods NAME ...]

For each model and method: the points of a calibration as `--calibrate` takes it and other points take turns in one
process, for a shared machine's speed changes within minutes; the law is fitted to the first and compared with the
others. On a machine that others use too, set OMP_NUM_THREADS=1: two threads of which one waits for its core measure the
others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunedeck.core.measurement import this_machine
from tunedeck.planner.machine import fit_cost_model
from tunedeck.training.calibrate import LADDERS

GENERATE = "bundled:smollm2-135m-instruct"
OTHERS = {
    "bundled:all-minilm-l6-v2": [[16, 24], [24, 40], [48, 48], [24, 96]],
    GENERATE: [[6, 24], [12, 32], [6, 80], [12, 64]],
}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora"},
    "bottleneck": {"kind": "bottleneck"},
    "prompt_tuning": {"kind": "prompt_tuning"},
    "full": {"kind": "full"},
}


def measured(model: str, method: dict[str, Any], points: Sequence[Sequence[int]]) -> list[list[float]]:
    """Points of a fresh process; SmolLM2 generates, MiniLM classifies."""
    request = json.dumps({"model": model, "method": method, "points": points, "generate": model == GENERATE})
    child = subprocess.run(
        [sys.executable, "-m", "tunedeck.training.calibrate", request], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "error" in found:
        raise SystemExit(found["error"])
    rows: list[list[float]] = found["points"]
    return rows


def examine(model: str, name: str) -> list[dict[str, Any]]:
    """Errors of one model and method at each point."""
    extra = 8 if name == "prompt_tuning" else 0
    ladder = LADDERS[model != GENERATE]
    points = measured(model, METHODS[name], [*ladder, *OTHERS[model]])
    known = [(int(r), int(t) + extra, s, b) for r, t, s, b in points[: len(ladder)]]
    time_s, memory = (fit_cost_model([(row[0], row[1], row[column]) for row in known]) for column in (2, 3))
    found = []
    for rows, tokens, seconds, peak in points[len(ladder) :]:
        p, width = rows * (tokens + extra), tokens + extra
        foretold_s = time_s.constant + time_s.per_token * p + time_s.per_score * p * width
        foretold_b = memory.constant + memory.per_token * p + memory.per_score * p * width
        row = {
            "model": model,
            "method": name,
            "rows": rows,
            "tokens": tokens,
            "step_s": [foretold_s, seconds],
            "memory_bytes": [foretold_b, peak],
            "time_error": foretold_s / seconds - 1,
            "memory_error": foretold_b / peak - 1,
        }
        found.append(row)
        print(
            f"{model:32} {name:14} {rows:>3} x {tokens:<4} time {row['time_error']:+7.1%}  memory "
            f"{row['memory_error']:+7.1%}",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", nargs="*", default=list(OTHERS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    arguments = parser.parse_args()
    rows = [row for model in arguments.models for name in arguments.methods for row in examine(model, name)]
    for reading in ("time_error", "memory_error"):
        errors = [abs(row[reading]) for row in rows]
        print(f"{reading}: median {statistics.median(errors):.1%}, worst {max(errors):.1%}, {len(errors)} points")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(
            json.dumps({"machine": this_machine().cpu, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
