"""What the training benchmarks share: sides that take turns in one process, and each side's peak memory in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainingArguments

import tunedeck as td
from tunedeck.core.measurement import PeakMemory, this_machine
from tunedeck.data.batches import length_batches
from tunedeck.tasks.base import Dataset

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
Row = dict[str, Any]
"""A tokenised example as the Trainer wants it."""


@dataclass(frozen=True)
class Opponent:
    """How peft and the Trainer are set up."""

    model: Row = field(default_factory=dict)
    """Of from_pretrained."""
    trainer: Row = field(default_factory=dict)
    """Of TrainingArguments."""
    pad_to: int | None = None
    """What batches are padded to a multiple of."""


def options_of(
    description: str, train_size: int, eval_size: int, rounds: int, models: tuple[str, ...] = ()
) -> argparse.Namespace:
    """The command line of a training benchmark, of several models the first by default."""
    parser = argparse.ArgumentParser(description=description)
    if models:
        parser.add_argument("--model", choices=models, default=models[0])
    parser.add_argument("--train-size", type=int, default=train_size)
    parser.add_argument("--eval-size", type=int, default=eval_size)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--peak-of", help="train by this side once and print the peak memory of the process")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return parser.parse_args()


def settings_of(batch_size: int, rate: float, seed: int) -> td.TrainingSettings:
    """This engine's settings, as the Trainer's are by default."""
    return td.TrainingSettings(
        epochs=1,
        batch_size=batch_size,
        learning_rate=rate,
        seed=seed,
        schedule="linear",
        warmup_ratio=0.0,
        weight_decay=0.0,
        head_init="random",
        early_stopping_patience=None,
    )


def trained_by_trainer(
    model: Any,
    rows: Callable[[], list[Row]],
    collator: Any,
    opponent: Opponent,
    batch_size: int,
    rate: float,
    seed: int,
) -> tuple[Trainer, float]:
    """One epoch of a peft model by the Trainer, tokenising included, and the seconds it took."""
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out,
            num_train_epochs=1,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            learning_rate=rate,
            seed=seed,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **opponent.trainer,
        )
        began = time.perf_counter()
        trainer = Trainer(model, arguments, train_dataset=rows(), data_collator=collator)
        trainer.train()
        return trainer, time.perf_counter() - began


def one_step(deck: td.Deck, data: Dataset[Any], batch_size: int, rate: float) -> Callable[[], object]:
    """One step after another of the adapter "a", forward, backward and update, as the engine takes them."""
    adapter = deck.adapter("a").train()
    objective = deck.task.objective(deck, "a", data)  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=rate, fused=True)
    batches = cycle(length_batches(objective.lengths, batch_size, 0))

    def step() -> None:
        loss, _ = objective.loss(next(batches))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def compete(
    name: str,
    unit: str,
    amount: float,
    sides: Mapping[str, Side],
    options: argparse.Namespace,
    opponents: Mapping[str, Opponent],
    step: Callable[[], Callable[[], object]],
    script: str,
) -> None:
    """Peaks, turns and the share of products, reported; or one side's peak, where `--peak-of` asks for it."""
    if options.peak_of:
        print_peak(sides[options.peak_of])
        return
    sizes = ["--train-size", str(options.train_size), "--eval-size", str(options.eval_size)]
    sizes += ["--model", options.model] if "model" in options else []
    peaks = {side: peak_of(script, side, sizes) for side in sides}
    found = take_turns(sides, options.rounds)
    told = {side: {key: str(value) for key, value in asdict(one).items()} for side, one in opponents.items()}
    facts = {
        "train_size": options.train_size,
        "eval_size": options.eval_size,
        "rounds": options.rounds,
        "product_share": round(product_share(step()), 3),
        "opponents": told,
    }
    report(name, unit, amount, found, peaks, facts)


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


def product_share(step: Callable[[], object], steps: int = 5) -> float:
    """Share of the CPU time of a few steps that is spent in matrix products, 0 to 1."""
    for _ in range(3):
        step()
    with torch.profiler.profile() as profile:
        for _ in range(steps):
            step()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(times.get(name, 0.0) for name in PRODUCTS) / sum(times.values())


def report(
    name: str,
    unit: str,
    amount: float,
    found: Mapping[str, list[Trained]],
    peaks: Mapping[str, int],
    facts: dict[str, Any],
) -> None:
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
