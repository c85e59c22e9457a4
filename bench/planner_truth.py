"""What `td.plan` says of short runs on a machine that was never calibrated, and what happens.

    python bench/planner_truth.py [--quick] [--only NUMBER ...] [--label LABEL] [--burners N] [--out PATH]

Each run is planned before and measured after, both in fresh processes with the same threads and processors, with an
empty cache folder: it has the bundled models, and neither a calibration nor vectors and heads of an earlier run, except
in the case that repeats one. `time` is that of training (the head's start and the steps), `whole` that of the process,
from its first import to the written run folder. `after` is what the table after the run says, which knows the lengths
of its batches. Rows are printed and put under their label into the file, with how many cores other programs used during
the run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psutil

from tunedeck.core.bundle import cache_folder

if TYPE_CHECKING:
    from tunedeck.planner.memory import Setup
    from tunedeck.planner.processor import Processor

MINILM, SMOLLM, TINY = "bundled:all-minilm-l6-v2", "bundled:smollm2-135m-instruct", "tiny"
RESULTS = Path(__file__).parent / "results" / "planner_truth.json"
HELD_OUT = 0.1
JOINED = 8
"""Tweets in a long text."""
QUANTITIES = ("memory", "time", "whole", "memory after", "time after")
LEFT_BY_RUNS = ("machines", "vectors", "heads")
SETTLES_S = 3
"""After which other processes that were started compute."""


@dataclass(frozen=True)
class Case:
    """A run; `rows` a batch, `steps` an epoch, `threads` of OpenMP, on one processor if `one_core`."""

    model: str
    method: str
    rows: int
    steps: int
    epochs: float = 1
    threads: int = 2
    one_core: bool = False
    tokens: int = 64
    generate: bool = False
    again: bool = False
    """After a run that was the same."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """All that sets it apart."""
        task = "generate" if self.generate else "classify"
        model = self.model.removeprefix("bundled:").partition("-")[0]
        method = "head" if self.settings.get("layers") == "head" else self.method
        where = "1 core" if self.one_core else f"{self.threads} threads"
        more = ", again" if self.again else ""
        return f"{model} {task} {method} {self.rows}x{self.tokens}, {self.epochs:g} x {self.steps} steps, {where}{more}"


HEAD = {"layers": "head"}
CASES = (
    Case(MINILM, "lora", 32, 1, threads=1),
    Case(MINILM, "lora", 32, 8),
    Case(MINILM, "lora", 8, 12, epochs=2),
    Case(MINILM, "lora", 64, 3, threads=1),
    Case(MINILM, "lora", 8, 5, tokens=128),
    Case(MINILM, "lora", 4, 4, tokens=256, one_core=True),
    Case(MINILM, "bottleneck", 16, 10),
    Case(MINILM, "bottleneck", 16, 6, one_core=True),
    Case(MINILM, "prompt_tuning", 16, 10),
    Case(MINILM, "prompt_tuning", 32, 3, threads=1),
    Case(MINILM, "full", 32, 5, epochs=2, settings=HEAD),
    Case(MINILM, "full", 32, 1, threads=1, settings=HEAD),
    Case(MINILM, "full", 16, 8),
    Case(MINILM, "full", 8, 5, threads=1),
    Case(SMOLLM, "lora", 4, 3, generate=True),
    Case(SMOLLM, "lora", 2, 2, tokens=128, threads=1, generate=True),
    Case(SMOLLM, "bottleneck", 4, 2, generate=True),
    Case(SMOLLM, "prompt_tuning", 4, 2, generate=True),
    Case(SMOLLM, "full", 2, 2, tokens=48, generate=True),
    Case(SMOLLM, "lora", 8, 3),
    Case(SMOLLM, "full", 8, 2, epochs=2, threads=1, settings=HEAD),
    Case(TINY, "lora", 32, 1),
    Case(TINY, "lora", 32, 40, epochs=2),
    Case(TINY, "full", 8, 40, threads=1),
    Case(MINILM, "lora", 32, 8, again=True),
)
QUICK = (1, 9, 13, 14, 22)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{len(QUICK)} of the {len(CASES)} runs")
    parser.add_argument("--only", nargs="*", type=int, help="runs by number, from 0")
    parser.add_argument("--label", default="now", help="what to call these rows, such as quiet or busy")
    parser.add_argument("--burners", type=int, default=0, help="other processes that compute all the while")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, request = arguments.child
        values = json.loads(request)
        print(json.dumps({"plan": planned, "run": measured}[kind](Case(**values["case"]), Path(values["folder"]))))
        return
    chosen = QUICK if arguments.quick else arguments.only if arguments.only is not None else range(len(CASES))
    with tempfile.TemporaryDirectory() as folder, burning(arguments.burners):
        write_inputs(Path(folder))
        for number in chosen:
            row = {"case": CASES[number].name, **examine(CASES[number], Path(folder))}
            keep(row, arguments.label, arguments.out)
            show(row)
    summary(json.loads(arguments.out.read_text(encoding="utf-8"))[arguments.label])


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep processes beside the runs that multiply matrices on one thread each."""
    code = "import numpy; a = numpy.ones((512, 512), 'float32')\nwhile True: a @ a"
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    burners = [subprocess.Popen([sys.executable, "-c", code], env=one) for _ in range(count)]
    try:
        time.sleep(SETTLES_S if count else 0)
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def write_inputs(folder: Path) -> None:
    """A tiny model."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(str(cache_folder() / "all-minilm-l6-v2"))
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / TINY)
    tokenizer.save_pretrained(folder / TINY)


def fresh_cache(folder: Path) -> Path:
    """A cache folder that holds the bundled parts and nothing that a run or a calibration left."""
    cache = Path(tempfile.mkdtemp(prefix="cache-", dir=folder))
    for part in cache_folder().iterdir():
        if part.name not in LEFT_BY_RUNS:
            (cache / part.name).symlink_to(part)
    return cache


def data_of(case: Case, folder: Path) -> Path:
    """A file of the case's examples, a tenth of which are held out: tweets, or several joined to one long text."""
    import tunedeck as td

    path = folder / f"{case.name.replace(' ', '-').replace(',', '')}.csv"
    if not path.exists():
        count = round(case.rows * case.steps / (1 - HELD_OUT))
        whole = td.Classify().read(td.DataSettings(train="bundled:tweets", train_size=9000, eval_size=1)).train
        random.Random(0).shuffle(found := list(whole))
        each = 1 if case.tokens <= 64 else 2 if case.generate else JOINED  # an answer is not cut off
        rows = [(" ".join(e.text for e in found[i * each :][:each]), found[i * each].labels[0]) for i in range(count)]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label") if not case.generate else ("output", "instruction"))
            writer.writerows(rows)
    return path


def examine(case: Case, folder: Path) -> dict[str, Any]:
    """Predicted and measured: [low, expected, high, measured] of each quantity, None where the plan says nothing."""
    data_of(case, folder)
    load, cache = os.getloadavg()[0], fresh_cache(folder)
    if case.again:
        in_child("run", case, folder, cache)
    plan = in_child("plan", case, folder, cache)
    began, others_before = time.time(), others_s()
    run = in_child("run", case, folder, cache)
    others = (others_s() - others_before) / (time.time() - began)
    run["measured"]["whole"] = run.pop("ended") - began
    measured = run["measured"]
    before = ("memory",) if case.again else ("memory", "time", "whole")  # a plan knows of no earlier run
    found = {name: [*plan[name], measured[name]] for name in before}
    found |= {f"{name} after": [*run[name], measured[name]] for name in ("memory", "time") if name in run}
    return {**found, "load": load, "others": others, "details": {**run["details"], **plan["details"]}}


def others_s() -> float:
    """Processor seconds of all programs but this one and its finished children since the machine started (Linux)."""
    own, times = os.times(), psutil.cpu_times()
    return times.user + times.nice + times.system - own.user - own.system - own.children_user - own.children_system


def in_child(kind: str, case: Case, folder: Path, cache: Path) -> dict[str, Any]:
    """What a fresh process with the case's threads and processors prints."""
    request = json.dumps({"case": asdict(case), "folder": str(folder)})
    pinned = ["taskset", "-c", "0"] if case.one_core else []
    command = [*pinned, sys.executable, __file__, "--child", kind, request]
    more = {"TUNEDECK_CACHE": str(cache), "OMP_NUM_THREADS": str(case.threads), "CUDA_VISIBLE_DEVICES": ""}
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **more})
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def planned(case: Case, folder: Path) -> dict[str, Any]:
    """The plan's row for this machine."""
    import tunedeck as td
    from tunedeck.planner import plan as planning
    from tunedeck.planner.processor import processor_now

    seen: list[Processor] = []

    def noted(setup: Setup) -> Processor:
        seen.append(processor_now(setup))
        return seen[-1]

    with patch.object(planning, "processor_now", noted):
        plan = td.plan(
            str(folder / TINY) if case.model == TINY else case.model,
            str(data_of(case, folder)),
            epochs=case.epochs,
            tokens=case.tokens,
            task="generate" if case.generate else "classify",
            methods=case.method,
            settings=case.settings,
            micro_batch=case.rows,
            gradient_accumulation_steps=1,
            gpus="this-machine",
        )
    row = plan.rows[0]
    spans = {"memory": row.peak_device_bytes, "time": row.hours.train, "whole": row.hours.total_h.scaled(3600)}
    details = {
        "plan parts": row.parts.to_json(),
        "plan steps": row.steps,
        "plan tokens": plan.request.workload.mean_tokens,
        "plan step_s": row.step_s.to_json(),
        "plan processor": asdict(seen[0]),
    }
    return {**{name: [one.low, one.expected, one.high] for name, one in spans.items()}, "details": details}


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """The run itself, and what the table after it says."""
    import tunedeck as td
    from tunedeck.comparison.hindsight import predicted_and_actual
    from tunedeck.methods.registry import config_of
    from tunedeck.training.config import run_config

    model = str(folder / TINY) if case.model == TINY else case.model
    task: Any = td.Generate(max_length=case.tokens) if case.generate else td.Classify(max_length=case.tokens)
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    settings = td.TrainingSettings(epochs=case.epochs, batch_size=case.rows)
    deck = td.Deck.load(model, task)
    deck.add("run", config_of(case.method, case.settings))
    run = td.train(deck, "run", str(data_of(case, folder)), settings=settings, out=out, progress=False)
    ended, found = time.time(), run.measurement
    kind = "generate" if case.generate else "classify"
    values = {
        "model": model,
        "data": {"train": str(data_of(case, folder))},
        "task": {"kind": kind, "max_length": case.tokens},
        "method": {"kind": case.method, **case.settings},
        "training": {"epochs": case.epochs, "batch_size": case.rows},
    }
    compared = predicted_and_actual(found, run_config(values))
    after = {c.quantity: [c.predicted.low, c.predicted.expected, c.predicted.high] for c in compared}
    actual = {"memory": found.peak_memory_bytes, "time": found.start_s + found.train_s}
    details = {**found.to_json(), "basis after": "".join(c.basis for c in compared)}
    return {**after, "measured": actual, "ended": ended, "details": details}


def keep(row: dict[str, Any], label: str, out: Path) -> None:
    """Put a row into the file, in the place of an older one of the same case and label."""
    everything = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    kept = [other for other in everything.get(label, []) if other["case"] != row["case"]]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**everything, label: [*kept, row]}, indent=1) + "\n", encoding="utf-8")


def inside(values: list[float]) -> bool:
    """Whether the measured value lies in the predicted band."""
    low, _, high, actual = values
    return low <= actual <= high


def show(row: dict[str, Any]) -> None:
    """One line for each quantity."""
    print(f"{row['case']}  (load {row['load']:.1f}, others on {row['others']:.2f} cores)", flush=True)
    for name in QUANTITIES:
        scale, unit = (1e6, "MB") if "memory" in name else (1, "s")
        if name not in row:
            continue
        low, expected, high, actual = (value / scale for value in row[name])
        mark = "" if inside(row[name]) else "   OUTSIDE"
        print(f"    {name:13} {expected:9.1f} ({low:.1f} - {high:.1f}) {unit}, was {actual:.1f}{mark}", flush=True)


def summary(rows: list[dict[str, Any]]) -> None:
    """The share of the runs inside the band, for each quantity."""
    for name in QUANTITIES:
        known = [inside(row[name]) for row in rows if name in row]
        print(f"{name:13} {sum(known)} of {len(known)} inside")


if __name__ == "__main__":
    main()
