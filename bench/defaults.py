"""Which learning rates, steps, warm-up and dropout suit a method: a grid over data sets, sizes and seeds.

    python bench/defaults.py --minutes 60            # resumes where the last call ended; results/defaults.jsonl
    python bench/defaults.py --workers 14            # so many processes, on a GPU or many cores
    python bench/defaults.py --table                 # what is known so far, as Markdown, and what races recorded

Every set is split once; a size is that number of examples of each label, drawn with the seed of the run. Each method
trains at its default rate and at both ends of its `learning_rates` for FEWEST_STEPS steps, the default of a small data
set; LoRA and bottlenecks with one setting changed at a time as well, on the middle size. A run is measured at its end
on the same held-out texts, by which nothing was chosen. `probe` is the head only, from which the others start.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

import tunedeck as td
from tunedeck.core.run_length import FEWEST_STEPS
from tunedeck.data.labelled import Example
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.start import start_head
from tunedeck.training.optimizer import FITTED_HEAD_RATE

MODEL = "bundled:all-minilm-l6-v2"
OUT = Path(__file__).parent / "results" / "defaults.jsonl"
RACES = Path(__file__).parent / "results" / "race.jsonl"
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
METHODS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(),
    "bottleneck": td.BottleneckConfig(),
    "full": td.FullConfig(),
    "bias": td.BiasConfig(),
    "ia3": td.Ia3Config(),
    "prefix": td.PrefixTuningConfig(),
    "prompt": td.PromptTuningConfig(),
}
HEAD = "(head)"
"""What races call the probe."""
RATE = re.compile(r" ?learning_rate=(\S+)")
SIZES = (32, 8, 128)
SEEDS = (0, 1, 2)
DROPOUT = {"lora": "lora_dropout", "bottleneck": "dropout"}
"""The methods with varied settings."""
VARIED: tuple[dict[str, Any], ...] = (
    {"steps": 20},
    {"steps": 120},
    {"head_rate": 1e-4},
    {"head_rate": 1e-2},
    {"warmup_ratio": 0.0},
    {"warmup_ratio": 0.2},
    {"dropout": 0.1},
)


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the grid."""

    data: str
    size: int
    seed: int
    method: str
    rate: float = 0.0
    head_rate: float = 0.0
    steps: int = 0
    warmup_ratio: float = 0.06
    dropout: float = 0.0

    @property
    def cell(self) -> tuple[str, int, int]:
        """The data of the run."""
        return self.data, self.size, self.seed


Known = dict[Case, dict[str, Any]]


def rates(method: str) -> tuple[float, float, float]:
    """The lowest rate, the default and the highest."""
    low, high = METHODS[method].learning_rates
    return low, METHODS[method].learning_rate, high


def at_rate(data: str, size: int, seed: int, method: str, rate: float) -> Case:
    """The run at this rate, all else as by default."""
    return Case(data, size, seed, method, rate, min(rate, FITTED_HEAD_RATE), FEWEST_STEPS)


def varied(data: str, seed: int, method: str) -> list[Case]:
    """Runs with one setting changed."""
    default = at_rate(data, SIZES[0], seed, method, METHODS[method].learning_rate)
    return [replace(default, **changes) for changes in VARIED]


def jobs() -> Iterator[list[Case]]:
    """The cases with the same data and method: one start serves all of them."""
    for seed in SEEDS:
        for size, data in product(SIZES, SETS):
            yield [Case(data, size, seed, "probe")]
            yield from ([at_rate(data, size, seed, method, rate) for rate in rates(method)] for method in METHODS)
        yield from (varied(data, seed, method) for data, method in product(SETS, DROPOUT))


@cache
def read_set(name: str) -> Dataset[Example]:
    """The set of this name, split."""
    data = td.Classify().read(SETS[name])
    return two_at_once(data) if name == "two-intents" else data


@cache
def deck_for(name: str, model: str) -> td.Deck:
    """The base, for the set of this name."""
    task = td.Classify(labels=read_set(name).labels, multi_label=name == "two-intents", max_length=MAX_LENGTH)
    return td.Deck.load(model, task)


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
        deck.add("case", config_of(case), labels=data.labels, seed=case.seed)
        began = time.process_time()
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
        rows.append({**row, "seconds": round(time.process_time() - began, 2)})
    return rows


def config_of(case: Case) -> MethodConfig:
    """The method of a run."""
    if case.method == "probe":
        return td.FullConfig("head")
    changes: dict[str, Any] = {DROPOUT[case.method]: case.dropout} if case.dropout else {}
    return replace(METHODS[case.method], **changes)


def trained(deck: td.Deck, case: Case, data: Dataset[Example]) -> dict[str, float]:
    """The metrics at the end of one run, where nothing was chosen by them."""
    last: dict[str, float] = {}
    settings = td.TrainingSettings(
        max_steps=case.steps,
        learning_rate=case.rate,
        head_learning_rate=case.head_rate,
        head_init="random",  # `measured` has put the fitted one there
        warmup_ratio=case.warmup_ratio,
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
    """Print what each rate, and each setting, gains over the probe and loses to the best of its grid, in points of
    macro-F1, run by run; and the median of what the default gains on each set.
    """
    scores = {case: 100 * row["macro_f1"] for case, row in known.items()}
    probes = {case.cell: score for case, score in scores.items() if case.method == "probe"}
    cells = sorted(probes)
    print("| method | rate | runs | over the probe, median | lowest | below the best rate, median |")
    print("|---|---|--:|--:|--:|--:|")
    for method in METHODS:
        grid = {rate: [at_rate(*cell, method, rate) for cell in cells] for rate in rates(method)}
        print_lines(f"{method} | ", {f"{rate:g}": cases for rate, cases in grid.items()}, scores, probes)
    print(f"\n| method | {' | '.join(SETS)} |")
    print(f"|---|{'--:|' * len(SETS)}")
    for method in METHODS:
        defaults = [at_rate(*cell, method, METHODS[method].learning_rate) for cell in cells]
        gains = {
            data: [scores[c] - probes[c.cell] for c in defaults if c in scores and c.data == data] for data in SETS
        }
        print(f"| {method} | {' | '.join(f'{median(own):+.1f}' if own else '' for own in gains.values())} |")
    print("\n| method | setting | runs | over the probe, median | lowest | below the best setting, median |")
    print("|---|---|--:|--:|--:|--:|")
    for method in DROPOUT:
        own = [cell for cell in cells if cell[1] == SIZES[0]]
        settings = {"default": [at_rate(*cell, method, METHODS[method].learning_rate) for cell in own]}
        for place, changes in enumerate(VARIED):
            name = ", ".join(f"{key} {value:g}" for key, value in changes.items())
            settings[name] = [varied(data, seed, method)[place] for data, _, seed in own]
        print_lines(f"{method} | ", settings, scores, probes)


def race_table() -> None:
    """Print the same of the runs that `race.py record` has recorded, in points of accuracy on the untouched examples;
    a rate of a method is all candidates with this rate beside the same candidate at other rates.
    """
    accuracy: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
    for line in RACES.read_text().splitlines():
        row = json.loads(line)
        rate = RATE.search(row["name"])
        value = float(rate.group(1)) if rate else 0.0
        right = row["test"][-1]
        accuracy[str(row["instance"]), RATE.sub("", row["name"])][value] = 100 * right.count("1") / len(right)
    whole = {name: max(len(own) for (_, one), own in accuracy.items() if one == name) for _, name in accuracy}
    found: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for (instance, name), own in accuracy.items():
        if len(own) == whole[name] and len(own) > 1:
            head = accuracy[instance, HEAD][0.0]
            for rate, value in own.items():
                found[name.split()[0], rate].append((value - head, max(own.values()) - value))
    print("\n| method | rate | runs | over the probe, median | mean | lowest | below the best rate, median |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (method, rate), pairs in sorted(found.items()):
        gains, below = zip(*pairs, strict=True)
        middle = f"{median(gains):+.1f} | {fmean(gains):+.1f} | {min(gains):+.1f} | {median(below):.1f}"
        print(f"| {method} | {rate:g} | {len(gains)} | {middle} |")


def print_lines(
    prefix: str, settings: dict[str, list[Case]], scores: dict[Case, float], probes: dict[tuple[str, int, int], float]
) -> None:
    """Print one line for each setting, over the cells in which all of them are known."""
    whole = [cases for cases in zip(*settings.values(), strict=True) if all(case in scores for case in cases)]
    for name, own in zip(settings, zip(*whole, strict=True), strict=False):
        gains = [scores[case] - probes[case.cell] for case in own]
        below = median(
            max(map(scores.__getitem__, cases)) - scores[case] for cases, case in zip(whole, own, strict=True)
        )
        print(f"| {prefix}{name} | {len(own)} | {median(gains):+.1f} | {min(gains):+.1f} | {below:.1f} |")


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
    race_table()


if __name__ == "__main__":
    main()
