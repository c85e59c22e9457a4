"""Which learning rates and how many steps suit a method: a grid over data sets, sizes and seeds, searched in rounds.

    python bench/defaults.py --minutes 60          # resumes where the last call ended; results/defaults.jsonl
    python bench/defaults.py --table               # what is known so far

Each round changes one setting and keeps the best value of the rounds before it: the learning rate on a few data sets
with one seed, the rate of the head, the number of steps, then the best settings and their neighbours on every data set
and size with every seed. Every set is split once; a size is that number of examples of each label, drawn with the seed
of the run. A run is measured at its end on the same held-out texts, by which nothing was chosen. `probe` is the head
alone, from which the others start.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import tunedeck as td
from tunedeck.data.labelled import Example
from tunedeck.tasks.base import Dataset

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
    "full": td.FullConfig(),
}
RATES: dict[str, tuple[float, ...]] = {
    "lora": (3e-4, 1e-3, 3e-3),
    "bottleneck": (3e-4, 1e-3, 3e-3),
    "prompt": (3e-3, 1e-2, 5e-2),
    "full": (1e-5, 3e-5, 1e-4),
}
HEAD_RATES = (1e-4, 1e-3, 1e-2)
STEPS = (12, 30, 75)
FIRST: dict[str, Any] = {"head_rate": 1e-3, "steps": 30}
"""What the first round, on rates, holds fixed."""
SCANNED = (("intents-en", 8), ("two-intents", 8), ("tweets", 32), ("reviews-zh", 32))
CELLS = tuple((data, size) for size, data in product((8, 32, 128), SETS))
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


def gains(known: Known, method: str, cells: Iterable[tuple[str, int]], seeds: Iterable[int]) -> dict[Any, list[float]]:
    """By setting of a method: macro-F1 above the probe's, of the cells that are known."""
    wanted = {(*cell, seed) for cell in cells for seed in seeds}
    probes = {case.cell: row["macro_f1"] for case, row in known.items() if case.method == "probe"}
    found: dict[Any, list[float]] = {}
    for case, row in known.items():
        if case.method == method and case.cell in wanted:
            found.setdefault(case.setting, []).append(row["macro_f1"] - probes[case.cell])
    return found


def best(known: Known, method: str, settings: Iterable[tuple[float | None, float | None, int]]) -> Case:
    """The setting with the highest mean gain on the scanned cells, as a case without data."""
    found = gains(known, method, SCANNED, SEEDS[:1])
    rate, head_rate, steps = max(settings, key=lambda one: fmean(found[one]))
    return Case("", 0, 0, method, rate, head_rate, steps)


def rounds(known: Known) -> Iterator[Case]:
    """The cases in the order in which they are run; later ones depend on the results of earlier ones."""
    for data, size in SCANNED:
        yield Case(data, size, 0, "probe")
    chosen: dict[str, Case] = {}
    first = [Case("", 0, 0, method, rate, **FIRST) for method, rates in RATES.items() for rate in rates]
    yield from on_scanned(first)
    for method in RATES:
        chosen[method] = best(known, method, [case.setting for case in first if case.method == method])
    for field, values in (("head_rate", HEAD_RATES), ("steps", STEPS)):
        for method, case in list(chosen.items()):
            tried = [replace(case, **{field: value}) for value in values]
            yield from on_scanned(tried)
            chosen[method] = best(known, method, [one.setting for one in tried])
    for seed, neighbours in ((0, False), (0, True), (1, False), (2, False), (1, True), (2, True)):
        for data, size in CELLS:
            yield Case(data, size, seed, "probe")
            for case in chosen.values():
                for one in around(case) if neighbours else [case]:
                    yield replace(one, data=data, size=size, seed=seed)


def on_scanned(cases: Iterable[Case]) -> Iterator[Case]:
    """The cases on each of the scanned cells."""
    yield from (replace(case, data=data, size=size) for data, size in SCANNED for case in cases)


def around(case: Case) -> list[Case]:
    """The settings beside a best one: the next lower and higher rate of the grid, and the other numbers of steps."""
    rates = RATES[case.method]
    near = {pair[pair.index(case.rate) - 1] for pair in pairwise(rates) if case.rate in pair}
    others = [steps for steps in STEPS if steps != case.steps]
    return [*(replace(case, rate=rate) for rate in sorted(near)), *(replace(case, steps=steps) for steps in others)]


@dataclass(frozen=True, slots=True)
class Source:
    """A set, read and split once, and the deck that it is learnt on."""

    data: Dataset[Example]
    deck: td.Deck

    @classmethod
    def read(cls, name: str) -> Source:
        """The set of this name."""
        data = td.Classify().read(SETS[name])
        several = name == "two-intents"
        if several:
            data = two_at_once(data)
        task = td.Classify(labels=data.labels, multi_label=several, max_length=MAX_LENGTH)
        return cls(data, td.Deck.load(MODEL, task, dtype="float32"))

    def part(self, size: int, seed: int) -> Dataset[Example]:
        """`size` training examples of each label, all where there are fewer."""
        chosen: dict[int, Example] = {}
        for label in self.data.labels or ():
            own = [row for row, one in enumerate(self.data.train) if label in one.labels]
            rows = random.Random(seed).sample(own, min(size, len(own)))
            chosen |= {row: self.data.train[row] for row in rows}
        name = f"{self.data.source}-{size}-{seed}"
        return Dataset(name, [*chosen.values()], self.data.evaluation, name, "", self.data.labels)


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


def measured(source: Source, case: Case) -> dict[str, Any]:
    """The metrics of a run at its end, where nothing was chosen by them."""
    deck, data = source.deck, source.part(case.size, case.seed)
    deck.add("case", METHODS[case.method], labels=data.labels, seed=case.seed)
    last: dict[str, float] = {}
    settings = td.TrainingSettings(
        max_steps=case.steps or None,
        learning_rate=case.rate,
        head_learning_rate=case.head_rate,
        seed=case.seed,
        eval_steps=10**6,
        early_stopping_patience=0,
    )

    def keep(metrics: dict[str, float]) -> bool:
        last.update(metrics)
        return False

    began = time.perf_counter()
    run = td.train(deck, "case", data, settings=settings, progress=False, should_stop=keep)
    deck.remove("case")
    if run.stopped != "finished":
        raise SystemExit(f"{run.stopped}: {case}")
    metrics = last or run.start
    return {
        **asdict(case),
        "start": round(run.start["macro_f1"], 4),
        "accuracy": round(metrics["accuracy"], 4),
        "macro_f1": round(metrics["macro_f1"], 4),
        "loss": round(metrics["loss"], 4),
        "examples": len(data.train),
        "seconds": round(time.perf_counter() - began, 2),
    }


def read_known() -> Known:
    """The results so far, by case."""
    rows = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    return {Case(**{key: row[key] for key in Case.__slots__}): row for row in rows}


def run_grid(minutes: float) -> None:
    """Run what is not known yet, until the time is over."""
    end = time.monotonic() + 60 * minutes
    known, sources = read_known(), dict[str, Source]()
    for case in rounds(known):
        if case in known:
            continue
        if time.monotonic() > end:
            return
        if case.data not in sources:
            sources[case.data] = Source.read(case.data)
        known[case] = row = measured(sources[case.data], case)
        with OUT.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def table(known: Known) -> None:
    """Print as Markdown what each setting gains over the probe and loses to the best of its grid, run by run."""
    tried: dict[tuple[str, Any], list[Case]] = {}
    for case in known:
        tried.setdefault((case.method, case.cell), []).append(case)
    print(
        "| method | rate | rate of the head | steps | runs | over the probe, median | lowest | below the best, median |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for method in RATES:
        for setting, own in sorted(gains(known, method, CELLS, SEEDS).items()):
            lost = [
                max(known[one]["macro_f1"] for one in cases) - known[case]["macro_f1"]
                for (name, _), cases in tried.items()
                if name == method and len(cases) > 1
                for case in cases
                if case.setting == setting
            ]
            rate, head_rate, steps = setting
            below = f"{100 * median(lost):.1f}" if lost else "-"
            cells = [method, f"{rate:g}", f"{head_rate:g}", steps, len(own)]
            cells += [f"{100 * median(own):+.1f}", f"{100 * min(own):+.1f}", below]
            print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--table", action="store_true", help="print what is known and run nothing")
    options = parser.parse_args()
    if not options.table:
        run_grid(options.minutes)
    table(read_known())


if __name__ == "__main__":
    main()
