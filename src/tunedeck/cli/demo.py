"""`tunedeck demo`: the whole job on real input, through the same commands a user would type."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli.console import megabytes, print_json, print_table, tell
from tunedeck.cli.fetch import all_bundles
from tunedeck.core.bundle import fetch
from tunedeck.core.errors import TrainingError
from tunedeck.core.messages import language, say
from tunedeck.core.storage import write_json

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck

MODEL, DATA = "bundled:all-minilm-l6-v2", "bundled:tweets"
METHODS = {
    "lora": ["--method", "lora", "--r", "8", "--lora-alpha", "32", "--target-modules", "query,value"],
    "bottleneck": ["--method", "seq_bn"],
    "prompt-tuning": ["--method", "prompt_tuning", "--num-virtual-tokens", "8"],
    "head": ["--method", "head"],
}
TEXTS = (
    "best flight ever, the crew was wonderful",
    "my bag is lost and nobody answers the phone",
    "boarding at gate 12 in ten minutes",
    "I really don't know what to think about this",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One method's line in the comparison."""

    name: str
    trainable_parameters: int
    trainable_share: float
    method_parameters: int
    disk_bytes: int
    train_s: float
    peak_memory_bytes: int
    accuracy: float
    macro_f1: float
    latency_ms: float
    latency_ratio: float
    """Time for one text over the bare base's."""


def demo(
    train_size: Annotated[int, typer.Option(help=say("tweets to train on"))] = 4000,
    eval_size: Annotated[int, typer.Option(help=say("tweets held out"))] = 1500,
    epochs: Annotated[float, typer.Option(help=say("passes over the data"))] = 2,
    out: Annotated[Path, typer.Option(help=say("where the runs go; earlier demo runs there are replaced"))] = Path("runs/demo"),
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:  # fmt: skip
    """Train LoRA, a bottleneck adapter, prompt tuning and the head alone; compare them; mix them in one batch."""
    import tunedeck as td
    from tunedeck.tasks.registry import task_of

    began = time.perf_counter()
    for part in (MODEL, DATA):
        if part.startswith("bundled:"):
            fetch(all_bundles()[part.removeprefix("bundled:")])
    for name, flags in METHODS.items():
        sizes = ["--train-size", str(train_size), "--eval-size", str(eval_size), "--epochs", f"{epochs:g}"]
        _run(["train", "--model", MODEL, "--data", DATA, *flags, *sizes, "--out", str(out / name), "--overwrite"])
    first = json.loads((out / "lora" / "adapter" / "tunedeck.json").read_text(encoding="utf-8"))
    deck = td.Deck.load(MODEL, task_of(first["task"]))
    for name in METHODS:
        deck.load_adapter(out / name / "adapter", name)
    latencies = _latencies(deck)
    rows = [_row(deck, name, out / name, latencies) for name in METHODS]
    answers = deck.predict(TEXTS, adapter=list(METHODS))
    total_s = time.perf_counter() - began
    result = {
        "rows": [_values(row) for row in rows],
        "mixed_batch": [
            {"text": text, "adapter": name, "label": answer.label, "score": answer.score}
            for text, name, answer in zip(TEXTS, METHODS, answers, strict=True)
        ],
        "train_size": train_size,
        "eval_size": eval_size,
        "epochs": epochs,
        "base_latency_ms": latencies[None],
        "total_s": total_s,
    }
    write_json(out / "comparison.json", result)
    if as_json:
        print_json(result)
        return
    _show(rows, result)
    tell(say("{seconds:.0f} s in all; the numbers are in {path}", seconds=total_s, path=out / "comparison.json"))
    tell(
        say(
            'next: tunedeck predict --adapter {path} "a text", or your own file: tunedeck train --help',
            path=out / "lora" / "adapter",
        )
    )


def _run(arguments: list[str]) -> None:
    """Run one of our own commands in a process of its own, so that each method's memory is measured alone."""
    tell("$ tunedeck " + shlex.join(arguments))
    command = [sys.executable, "-m", "tunedeck", "--lang", language(), *arguments]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise TrainingError(say("the command above ended with code {code}", code=code))


def _latencies(deck: Deck, rounds: int = 15) -> dict[str | None, float]:
    """Median milliseconds for one text, alone in its batch, by adapter; the adapters take turns in every round."""
    names: list[str | None] = [None, *METHODS]
    seconds: dict[str | None, list[float]] = {name: [] for name in names}
    import torch

    ids = deck.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"].to(deck.model.device)
    for round_number in range(rounds + 2):
        for name in names:
            began = time.perf_counter()
            with torch.inference_mode():
                deck(ids, adapter=name)
            if round_number >= 2:
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * median(taken) for name, taken in seconds.items()}


def _row(deck: Deck, name: str, folder: Path, latencies: dict[str | None, float]) -> Row:
    from tunedeck.formats.folder import adapter_bytes

    summary, manifest = deck.summary(name), deck.adapter(name).manifest
    measured: dict[str, Any] = manifest.measurement or {}
    return Row(
        name=name,
        trainable_parameters=summary.trainable_parameters,
        trainable_share=summary.trainable_share,
        method_parameters=summary.method_parameters,
        disk_bytes=adapter_bytes(folder / "adapter"),
        train_s=measured["train_s"],
        peak_memory_bytes=measured["peak_memory_bytes"],
        accuracy=manifest.metrics["accuracy"],
        macro_f1=manifest.metrics["macro_f1"],
        latency_ms=latencies[name],
        latency_ratio=latencies[name] / latencies[None],
    )


def _values(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


def _show(rows: list[Row], result: dict[str, Any]) -> None:
    print_table(
        say(
            "{model}, {train} tweets to train on, {held_out} held out, {epochs:g} epochs",
            model=MODEL,
            train=result["train_size"],
            held_out=result["eval_size"],
            epochs=result["epochs"],
        ),
        ["", *(row.name for row in rows)],
        [
            [say("trainable parameters"), *(f"{row.trainable_parameters:,}" for row in rows)],
            [say("% of the model"), *(f"{row.trainable_share:.3%}" for row in rows)],
            [say("on disk"), *(megabytes(row.disk_bytes) for row in rows)],
            [say("training"), *(f"{row.train_s:.0f} s" for row in rows)],
            [say("peak memory"), *(megabytes(row.peak_memory_bytes) for row in rows)],
            [say("accuracy"), *(f"{row.accuracy:.3f}" for row in rows)],
            [say("macro-F1"), *(f"{row.macro_f1:.3f}" for row in rows)],
            [say("one text"), *(f"{row.latency_ms:.1f} ms" for row in rows)],
            [say("one text, base = 1"), *(f"{row.latency_ratio:.2f}" for row in rows)],
        ],
    )
    print_table(
        say("One base, one mixed batch, each row by its own adapter"),
        [say("text"), say("adapter"), say("label"), say("probability")],
        [[one["text"], one["adapter"], one["label"], f"{one['score']:.3f}"] for one in result["mixed_batch"]],
        numbers_from=3,
    )
