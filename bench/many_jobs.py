"""Several small LoRAs trained together on one base, beside a process for each: seconds and peak memory.

    python bench/many_jobs.py            MiniLM, tweets, 2, 4 and 8 jobs that differ in learning rate, seed and examples

Every measurement is a process of its own. The separate runs are taken one after another; their memory is given for that
and, as the sum, for all of them at once. Results are printed and written to bench/results/many_jobs.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import tunedeck as td
from tunedeck.core.measurement import PeakMemory, this_machine
from tunedeck.data.labelled import Example
from tunedeck.tasks.base import Dataset

MODEL, DATA = "bundled:all-minilm-l6-v2", "bundled:tweets"
RESULTS = Path(__file__).parent / "results" / "many_jobs.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--examples", type=int, default=1000, help="examples of each job")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--jobs", type=int, nargs="+", help="measure these jobs together, in this process, and print JSON"
    )
    options = parser.parse_args()
    if options.jobs is not None:
        print(json.dumps(train_together(options.jobs, options.examples, options.batch_size)))
        return
    alone = [measure([number], options) for number in range(max(options.counts))]
    rows = [row(measure(list(range(count)), options), alone[:count]) for count in options.counts]
    machine = this_machine()
    facts = {"cpu": machine.cpu, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result = {
        **facts,
        "model": MODEL,
        "data": DATA,
        "examples": options.examples,
        "batch_size": options.batch_size,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def row(together: dict[str, Any], alone: list[dict[str, Any]]) -> dict[str, Any]:
    """One count of jobs: together, apart, and how they compare."""
    seconds, one_by_one = together["train_s"], sum(one["train_s"] for one in alone)
    with_start = sum(one["train_s"] + one["start_s"] for one in alone)
    return {
        "jobs": len(alone),
        "together_train_s": round(seconds, 2),
        "apart_train_s": round(one_by_one, 2),
        "training_is_faster": round(one_by_one / seconds, 2),
        "with_start_and_load_is_faster": round(with_start / (seconds + together["start_s"]), 2),
        "together_peak_bytes": together["peak_bytes"],
        "apart_one_by_one_peak_bytes": max(one["peak_bytes"] for one in alone),
        "apart_at_once_peak_bytes": sum(one["peak_bytes"] for one in alone),
        "accuracy_together": together["accuracy"],
        "accuracy_apart": [accuracy for one in alone for accuracy in one["accuracy"]],
    }


def measure(jobs: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """The jobs together in a process of their own."""
    sizes = ["--examples", str(options.examples), "--batch-size", str(options.batch_size)]
    command = [sys.executable, __file__, *sizes, "--jobs", *map(str, jobs)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    print(f"jobs {jobs}: {found['train_s']:.1f} s, {found['peak_bytes'] / 1e6:.0f} MB", file=sys.stderr, flush=True)
    return found


def train_together(numbers: list[int], examples: int, batch_size: int) -> dict[str, Any]:
    """Seconds of start and of training, peak bytes and held-out accuracies."""
    began = time.perf_counter()
    with PeakMemory() as memory:
        whole = td.Classify().read(td.DataSettings(train=DATA, train_size=9000, eval_size=500))
        deck = td.Deck.load(MODEL, td.Classify(labels=whole.labels))
        jobs = {}
        for number in numbers:
            deck.add(f"job{number}", td.LoraConfig(r=8, lora_alpha=32, target_modules=("query", "value")), seed=number)
            settings = td.TrainingSettings(
                epochs=1, batch_size=batch_size, learning_rate=1e-3 * (1 + number % 3), seed=number
            )
            jobs[f"job{number}"] = td.Job(part(whole, number, examples), settings)
        started = time.perf_counter()
        runs = td.train(deck, jobs, progress=False)
        ended = time.perf_counter()
    return {
        "start_s": started - began,
        "train_s": ended - started,
        "peak_bytes": memory.peak_bytes,
        "accuracy": [round(run.metrics["accuracy"], 4) for run in runs.values()],
    }


def part(whole: Dataset[Example], number: int, examples: int) -> Dataset[Example]:
    """Each job has examples of its own."""
    return replace(whole, train=whole.train[number * examples : (number + 1) * examples])


if __name__ == "__main__":
    main()
