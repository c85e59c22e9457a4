"""What the training benchmarks share: sides that take turns in one process, and each side's peak memory in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tunedeck.core.measurement import PeakMemory, this_machine

RESULTS = Path(__file__).parent / "results"
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


@dataclass(frozen=True)
class Trained:
    """One training by one side."""

    seconds: float
    """From ready examples to the last update, tokenising and batching included."""
    quality: float
    """Held-out accuracy, or loss."""


Side = Callable[[int], Trained]
"""Trains from scratch with a seed."""


def take_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Trained]]:
    """Every side once in every round, after a first round that does not count."""
    found: dict[str, list[Trained]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            trained = side(number)
            print(f"round {number} {name}: {trained.seconds:.1f} s, {trained.quality:.4f}", file=sys.stderr, flush=True)
            if number:
                found[name].append(trained)
    return found


def peak_of(script: str, side: str, arguments: list[str]) -> int:
    """Peak resident bytes of one training by one side, in a process that does nothing else."""
    command = [sys.executable, script, *arguments, "--peak-of", side]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(printed.strip().splitlines()[-1])


def print_peak(side: Side) -> None:
    """What `peak_of` reads."""
    with PeakMemory() as memory:
        side(0)
    print(memory.peak_bytes)


def product_share(step: Callable[[], object], steps: int = 8) -> float:
    """Share of the CPU time of a few steps that is spent in matrix products, 0 to 1."""
    for _ in range(3):
        step()
    with torch.profiler.profile() as profile:
        for _ in range(steps):
            step()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(times.get(name, 0.0) for name in PRODUCTS) / sum(times.values())


def report(name: str, unit: str, amount: float, found: Mapping[str, list[Trained]], peaks: Mapping[str, int], facts: dict[str, Any]) -> None:  # fmt: skip
    """Print medians and ratios, and write them to results/NAME.json; `amount` of `unit`s is trained on each time."""
    seconds = {side: median(one.seconds for one in trained) for side, trained in found.items()}
    own = seconds["tunedeck"]
    rows = {
        side: {
            f"{unit}_per_s": round(amount / seconds[side], 1),
            "tunedeck_is_faster": round(seconds[side] / own, 2),
            "quality": round(median(one.quality for one in trained), 4),
            "peak_memory_bytes": peaks.get(side, 0),
            "seconds": [round(one.seconds, 2) for one in trained],
        }
        for side, trained in found.items()
    }
    machine = this_machine()
    result = {"cpu": machine.cpu, "cores": torch.get_num_threads(), "torch": torch.__version__, **facts, "sides": rows}
    text = json.dumps(result, indent=1)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def clock(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
