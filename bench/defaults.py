"""Which learning rates and how many steps suit a method: a grid over data sets, sizes and seeds.

    python bench/defaults.py --minutes 60            # resumes where the last call ended; results/defaults.jsonl
    python bench/defaults.py --workers 14            # so many processes, on a GPU or many cores
    python bench/defaults.py --table                 # what is known so far

Every set is split once; a size is that number of examples of each label, drawn with the seed of the run. A run is
measured at its end on the same held-out texts, by which nothing was chosen. `probe` is the head alone, from which the
others start.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

import tunedeck as td
from tunedeck.data.labelled import Example
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.start import start_head

MODEL = "bundled:all-minilm-l6-v2"
OUT = Path(__file__).parent / "results" / "defaults.jsonl"
HELD_OUT = 300
MAX_LENGTH = 32
SETS: dict[str, td.DataSettings] = {
    name: td.DataSettings(**settings, train_size=4000, eval_size=HELD_OUT)
    for name, settings in {
        "tweets": {"train": "bundled:tweets"},
        "reviews-zh": {"train": "bundled:reviews-zh"},
        "licences": {"train": "bundled:licences:train", "eval": "bundled:licences:test"},
        "intents-en": {"train": "bundled:home-intents-en:train", "eval": "bundled:home-intents-en:test"},
        "intents-zh": {"train": "bundled:home-intents-zh:train", "eval": "bundled:home-intents-zh:test"},
        "two-intents": {"train": "bundled:home-intents-en:train", "eval": "bundled:home-intents-en:test"},
    }.items()
}
"""`two-intents` joins two commands of eight intents; a text has the labels of both."""
METHODS: dict[str, Any] = {
    "probe": td.FullConfig("head"),
    "lora": td.LoraConfig(),
    "bottleneck": td.BottleneckConfig(),
    "prompt": td.PromptTuningConfig(),
    "prefix": td.PrefixTuningConfig(),
    "ia3": td.Ia3Config(),
    "bias": td.BiasConfig(),
    "full": td.FullConfig(),
}
RATES: dict[str, tuple[float, ...]] = {
    "lora": (3e-4, 1e-3, 3e-3),
    "bottleneck": (5e-4, 2e-3, 5e-3),
    "prompt": (3e-3, 1e-2, 5e-2),
    "prefix": (1e-3, 5e-3, 2e-2),
    "ia3": (1e-3, 5e-3, 2e-2),
    "bias": (1e-3, 3e-3, 1e-2),
    "full": (1e-5, 3e-5, 1e-4),
}
HEAD_RATES = (1e-3, 1e-2)
STEPS = (40, 120)
SIZES = (8, 32, 128)
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the grid."""

    data: str
    size: int
    seed: int
    method: str
    rate: float | None = None
    head_rate: float | None = None
    steps: int = 0

    @property
    def cell(self) -> tuple[str, int, int]:
        """The data of the run."""
        return self.data, self.size, self.seed

    @property
    def setting(self) -> tuple[float | None, float | None, int]:
        """What the grid varies."""
        return self.rate, self.head_rate, self.steps


Known = dict[Case, dict[str, Any]]


def jobs() -> Iterator[list[Case]]:
    """The cases with the same data and method: one start serves all of them."""
    for seed, size, data in product(SEEDS, SIZES, SETS):
        yield [Case(data, size, seed, "probe")]
        for method, rates in RATES.items():
            yield [Case(data, size, seed, method, *setting) for setting in product(rates, HEAD_RATES, STEPS)]


@cache
def read_set(name: str) -> Dataset[Example]:
    """The set of this name, split."""
    data = td.Classify().read(SETS[name])
    return two_at_once(data) if name == "two-intents" else data


@cache
def deck_for(name: str, model: str) -> td.Deck:
    """The base, for the set of this name."""
    task = td.Classify(labels=read_set(name).labels, multi_label=name == "two-intents", max_length=MAX_LENGTH)
    return td.Deck.load(model, task, dtype="float32")


def two_at_once(data: Dataset[Example]) -> Dataset[Example]:
    """Commands of eight intents, each also joined to one of another."""
    labels = tuple((data.labels or ())[::4][:8])

    def joined(examples: list[Example]) -> list[Example]:
        source = random.Random(0)
        single = [one for one in examples if one.labels[0] in labels]
        others = source.sample(single, len(single))
        pairs = [pair for pair in zip(single, others, strict=True) if pair[0].labels != pair[1].labels]
        found = [*single, *(Example(f"{a.text} and {b.text}", (*a.labels, *b.labels)) for a, b in pairs)]
        return source.sample(found, len(found))

    return Dataset(data.source, joined(data.train), joined(data.evaluation)[:HELD_OUT], "", "", labels)


def part(data: Dataset[Example], size: int, seed: int) -> Dataset[Example]:
    """`size` training examples of each label, all where there are fewer."""
    chosen: dict[int, Example] = {}
    for label in data.labels or ():
        own = [row for row, one in enumerate(data.train) if label in one.labels]
        rows = random.Random(seed).sample(own, min(size, len(own)))
        chosen |= {row: data.train[row] for row in rows}
    name = f"{data.source}-{size}-{seed}"
    return Dataset(name, [*chosen.values()], data.evaluation, name, "", data.labels)


def measured(model: str, cases: list[Case]) -> list[dict[str, Any]]:
    """The metrics at the end of runs that differ in their settings alone, from one fitted head."""
    torch.set_num_threads(1)
    deck, data = deck_for(cases[0].data, model), part(read_set(cases[0].data), cases[0].size, cases[0].seed)
    start: dict[str, float] = {}
    head: dict[str, torch.Tensor] = {}
    rows = []
    for case in cases:
        deck.add("case", METHODS[case.method], labels=data.labels, seed=case.seed)
        began = time.perf_counter()
        tensors = deck.adapter("case").head_tensors()
        if not head:
            start = start_head(deck, "case", data).metrics
            head = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(head[name])
        metrics = trained(deck, case, data) if case.steps else start
        deck.remove("case")
        found = {name: round(metrics[name], 4) for name in ("accuracy", "macro_f1", "loss")}
        row = {**asdict(case), "start": round(start["macro_f1"], 4), **found, "examples": len(data.train)}
        rows.append({**row, "seconds": round(time.perf_counter() - began, 2)})
    return rows


def trained(deck: td.Deck, case: Case, data: Dataset[Example]) -> dict[str, float]:
    """The metrics at the end of one run, where nothing was chosen by them."""
    last: dict[str, float] = {}
    settings = td.TrainingSettings(
        max_steps=case.steps,
        learning_rate=case.rate,
        head_learning_rate=case.head_rate,
        head_init="random",  # `measured` has put the fitted one there
        seed=case.seed,
        eval_steps=10**6,
        early_stopping_patience=0,
    )

    def keep(metrics: dict[str, float]) -> bool:
        last.update(metrics)
        return False

    run = td.train(deck, "case", data, settings=settings, progress=False, should_stop=keep)
    if run.stopped != "finished":
        raise SystemExit(f"{run.stopped}: {case}")
    return last


def read_known() -> Known:
    """The results so far, by case."""
    rows = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    return {Case(**{key: row[key] for key in Case.__slots__}): row for row in rows}


def run_grid(model: str, workers: int, minutes: float) -> None:
    """Run what is not known yet, until the time is over."""
    end, known = time.monotonic() + 60 * minutes, read_known()
    missing = ([case for case in job if case not in known] for job in jobs())
    for name in SETS:
        read_set(name)  # once, before the processes divide
    with multiprocessing.get_context("fork").Pool(workers) as pool, OUT.open("a") as file:
        for rows in pool.imap_unordered(partial(measured, model), filter(None, missing)):
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            print(f"{rows[-1]}", flush=True)
            if time.monotonic() > end:
                pool.terminate()
                return


def table(known: Known) -> None:
    """Print as Markdown what each setting gains over the probe and loses to the best of its grid, run by run."""
    probes = {case.cell: row["macro_f1"] for case, row in known.items() if case.method == "probe"}
    best: dict[tuple[str, Any], float] = {}
    for case, row in known.items():
        best[case.method, case.cell] = max(best.get((case.method, case.cell), 0.0), row["macro_f1"])
    print(
        "| method | rate | rate of the head | steps | runs | over the probe, median | lowest | below the best, median |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for method, rates in RATES.items():
        for setting in product(rates, HEAD_RATES, STEPS):
            own = {c: row["macro_f1"] for c, row in known.items() if c.method == method and c.setting == setting}
            gains = [value - probes[case.cell] for case, value in own.items() if case.cell in probes]
            if not gains:
                continue
            below = median(best[method, case.cell] - value for case, value in own.items())
            rate, head_rate, steps = setting
            cells = [method, f"{rate:g}", f"{head_rate:g}", steps, len(own)]
            cells += [f"{100 * median(gains):+.1f}", f"{100 * min(gains):+.1f}", f"{100 * below:.1f}"]
            print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--table", action="store_true", help="print what is known and run nothing")
    options = parser.parse_args()
    if not options.table:
        run_grid(options.model, options.workers, options.minutes)
    table(read_known())


if __name__ == "__main__":
    main()
