"""Which learning rate and how many epochs suit a method: a grid over data sets, sizes and seeds.

    python bench/defaults.py --minutes 60          # goes on where the last call ended; results/defaults.jsonl
    python bench/defaults.py --table               # what is known so far

Every set is split once; a size is that many examples of each label, drawn with the seed of the run. All runs of a set
are measured on the same held-out texts at their end, where nothing was chosen by them. `probe` is the head alone, from
which the others start.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import tunedeck as td
from tunedeck.data.labelled import Example
from tunedeck.tasks.base import Dataset

MODEL = "bundled:all-minilm-l6-v2"
OUT = Path(__file__).parent / "results" / "defaults.jsonl"
HELD_OUT = 500
SETS = {"tweets": "bundled:tweets", "reviews-zh": "bundled:reviews-zh", "licences": "bundled:licences:train"}
SIZES = (8, 32, 128)
SEEDS = (0, 1, 2)
METHODS: dict[str, Any] = {
    "probe": td.FullConfig("head"),
    "lora": td.LoraConfig(r=8, lora_alpha=32, target_modules=("query", "value")),
    "bottleneck": td.BottleneckConfig(),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=8),
    "full": td.FullConfig(),
}
RATES: dict[str, tuple[float | None, ...]] = {
    "probe": (None,),
    "lora": (3e-4, 1e-3, 3e-3),
    "bottleneck": (3e-4, 1e-3, 3e-3),
    "prompt": (5e-3, 2e-2, 8e-2),
    "full": (1e-5, 3e-5, 1e-4),
}
EPOCHS = {8: (20, 60), 32: (10, 30), 128: (5, 15)}
"""By size: small sets need more passes for as many steps."""
HEAD_RATES = (None, 1e-4)


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the grid; `head_rate` None is the rate of the rest."""

    data: str
    size: int
    seed: int
    method: str
    rate: float | None
    head_rate: float | None
    epochs: float


def grid() -> Iterator[Case]:
    """The cheapest first: small sets, then larger ones; all methods of a set and seed together."""
    for size in SIZES:
        for seed in SEEDS:
            for data in SETS:
                yield Case(data, size, seed, "probe", None, None, 0)
                for method, rates in RATES.items():
                    for rate in rates if method != "probe" else ():
                        for head_rate in HEAD_RATES:
                            for epochs in EPOCHS[size]:
                                yield Case(data, size, seed, method, rate, head_rate, epochs)


def split_of(source: str) -> Dataset[Example]:
    """A set, read and split once."""
    return td.Classify().read(td.DataSettings(train=source, train_size=3000, eval_size=HELD_OUT))


def part_of(whole: Dataset[Example], size: int, seed: int) -> Dataset[Example]:
    """`size` training examples of each label, as far as there are so many."""
    chosen: list[Example] = []
    for label in whole.labels or ():
        own = [one for one in whole.train if one.labels == (label,)]
        chosen += random.Random(seed).sample(own, min(size, len(own)))
    return Dataset(whole.source, chosen, whole.evaluation, f"{size}-{seed}", "", whole.labels)


def measured(deck: td.Deck, case: Case, data: Dataset[Example]) -> dict[str, Any]:
    """The run's metrics at its start, at its best and, with nothing chosen by them, at its end."""
    deck.add("case", METHODS[case.method], labels=data.labels, seed=case.seed)
    last: dict[str, float] = {}
    settings = td.TrainingSettings(
        epochs=case.epochs or 1,
        learning_rate=case.rate,
        head_learning_rate=case.head_rate,
        seed=case.seed,
        eval_steps=10**6,
    )

    def keep(metrics: dict[str, float]) -> bool:
        last.update(metrics)
        return False

    began = time.perf_counter()
    run = td.train(deck, "case", data, settings=settings, progress=False, should_stop=keep)
    deck.remove("case")
    return {
        **asdict(case),
        "start": run.start["accuracy"],
        "accuracy": last.get("accuracy", run.start["accuracy"]),
        "macro_f1": last.get("macro_f1", run.start["macro_f1"]),
        "seconds": round(time.perf_counter() - began, 2),
        "steps": run.measurement.steps,
    }


def known() -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []


def run_grid(minutes: float) -> None:
    """Run what is not known yet, until the time is over."""
    end = time.monotonic() + 60 * minutes
    done = {Case(**{key: row[key] for key in Case.__slots__}) for row in known()}
    wholes: dict[str, Dataset[Example]] = {}
    decks: dict[str, td.Deck] = {}
    for case in grid():
        if case in done or time.monotonic() > end:
            continue
        if case.data not in wholes:
            wholes[case.data] = split_of(SETS[case.data])
            decks[case.data] = td.Deck.load(MODEL, td.Classify(labels=wholes[case.data].labels))
        row = measured(decks[case.data], case, part_of(wholes[case.data], case.size, case.seed))
        with OUT.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def table() -> None:
    """Print each method's settings: their mean accuracy over the cases that all have, the gain over the probe."""
    rows = known()
    probe = {(row["data"], row["size"], row["seed"]): row["accuracy"] for row in rows if row["method"] == "probe"}
    for method in METHODS:
        found: dict[tuple[Any, ...], dict[tuple[Any, ...], float]] = {}
        for row in rows:
            if row["method"] == method and method != "probe":
                setting = (row["rate"], row["head_rate"], EPOCHS[row["size"]].index(row["epochs"]))
                found.setdefault(setting, {})[row["data"], row["size"], row["seed"]] = row["accuracy"]
        shared = set.intersection(*(set(one) for one in found.values())) if found else set()
        print(f"{method}: {len(shared)} cases")
        for setting, own in sorted(found.items(), key=lambda item: str(item[0])):
            gains = [own[case] - probe[case] for case in shared]
            if gains:
                print(f"  {setting}: {fmean(own[case] for case in shared):.3f}, over the probe {median(gains):+.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--table", action="store_true", help="show what is known and run nothing")
    options = parser.parse_args()
    if not options.table:
        run_grid(options.minutes)
    table()


if __name__ == "__main__":
    main()
