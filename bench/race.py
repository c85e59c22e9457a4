"""What a race costs and loses: all candidates trained to their end, and races replayed from their curves.

    python bench/race.py record --sets tweets intents-en --seeds 1 --rows 480    # resumes; results/race.jsonl
    python bench/race.py starts                                                  # measures starts again, not the rest
    python bench/race.py table                                                   # what is known so far
    python bench/race.py live --sets intents-en --seeds 1 --rows 480             # real races beside their replays

`record` trains every candidate to its end, scored at each rung on all held-out examples and at its end on the untouched
ones, one data set and seed after another. A seed draws the examples, their division and the first weights. `starts`
replaces the seconds before the first step (loading, the head on the frozen base, checking the candidates, then each
one's start, with an empty cache of vectors and heads) by those of the present code, scaled by the time of an evaluation
to the machine's speed when the curves were recorded. `table` replays, from these curves: the race, random search,
optuna's successive halving (both until they have cost what the race did, many orders), the first of the race's order
alone, and the default LoRA that gets the whole budget as epochs. Seconds are of the processor. Regret is the accuracy
on the untouched examples of the candidate that full training of all would have chosen on the held-out ones, minus that
of the one found. Where candidates are within one standard error, a race prefers the first in its order: here that of
their untouched accuracies on the other data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from race_replay import (
    FLOOR,
    LONG,
    LONGER,
    OUT,
    Instance,
    curves_of,
    preferred,
    raced,
    read_rows,
    shares_of,
    steps_of,
    table,
)

import tunedeck as td
from tunedeck.comparison.grammar import Candidate, parse_methods
from tunedeck.comparison.race.bases import choose_base
from tunedeck.comparison.race.entrants import Entrant, make_entrants
from tunedeck.comparison.race.parts import divided
from tunedeck.comparison.race.scores import Scoring
from tunedeck.core.bundle import cache_folder
from tunedeck.training.signals import StopSignals
from tunedeck.training.stages import StagedRun

SETS = {
    "tweets": {"train": "bundled:tweets"},
    "reviews-zh": {"train": "bundled:reviews-zh"},
    "licences": {"train": "bundled:licences:train", "eval": "bundled:licences:test"},
    "intents-en": {"train": "bundled:home-intents-en:train", "eval": "bundled:home-intents-en:test"},
    "intents-zh": {"train": "bundled:home-intents-zh:train", "eval": "bundled:home-intents-zh:test"},
}
MODELS = {"reviews-zh": "bundled:multilingual-e5-small", "intents-zh": "bundled:multilingual-e5-small"}
ENGLISH = "bundled:all-minilm-l6-v2"
DEFAULT = "lora:learning_rate=1e-3"
CANDIDATES = (
    DEFAULT,
    "lora:r=4:learning_rate=3e-4,1e-3,3e-3",
    "lora:r=32:learning_rate=3e-4,1e-3,3e-3",
    "lora:target_modules=all-linear:learning_rate=3e-4,1e-3,3e-3",
    "bottleneck:reduction_factor=4,16:learning_rate=5e-4,2e-3,5e-3",
    "full:layers=2:learning_rate=3e-4",
    "full:learning_rate=3e-5,1e-4",
    "ia3:learning_rate=1e-3,5e-3,2e-2",
    "bias:learning_rate=1e-3,3e-3,1e-2",
    "prompt_tuning:learning_rate=3e-3,1e-2,5e-2",
    "prefix_tuning:learning_rate=1e-3,1e-2",
)
"""Thirty."""


def values_of(instance: Instance, test: int) -> dict[str, Any]:
    name, seed, rows = instance
    data = {**SETS[name], "train_size": rows, "eval_size": test, "split_seed": seed}
    model = MODELS.get(name, ENGLISH)
    return {"model": model, "data": data, "task": {"kind": "classify", "max_length": 64}, "training": {"seed": seed}}


def chosen(count: int) -> list[Candidate]:
    """So many candidates, spread over the methods."""
    found = parse_methods(CANDIDATES, {})
    step = len(found) / count
    return [found[int(number * step)] for number in range(count)]


def record(instance: Instance, options: argparse.Namespace) -> None:
    """Train what is not known yet of a data set and seed, and append it."""
    known = {row["name"] for row in read_rows() if row["instance"] == list(instance)}
    candidates = [one for one in chosen(options.candidates) if one.name not in known]
    if not candidates and {FLOOR, LONG} <= known:
        return
    values = values_of(instance, options.test)
    task = td.Classify(max_length=64)
    dataset = task.read(td.DataSettings(**values["data"]))
    scoring = Scoring("accuracy", False)
    parts = divided(dataset, "accuracy", instance[1])
    began = time.process_time()
    deck, bases = choose_base(values, [values["model"]], parts, scoring, lambda text: None)
    load_s = round(time.process_time() - began, 3)
    if FLOOR not in known:
        _, chances = scoring.scores_and_chances(deck, "head only", parts.dataset, parts.dataset.evaluation)
        test = scoring.scores(deck, "head only", parts.dataset, parts.test)
        row = {
            "held_out": [digits(bases[0].scores)],
            "chances": [hundredths(chances)],
            "test": [digits(test)],
            "train_s": [],
            "start_s": load_s,
        }
        append(instance, FLOOR, {**row, "size": 0, "row_s": 0.0})
    jobs = [(one.name, [(one, instance[1])], values) for one in candidates]
    if LONG not in known:
        steps = LONGER * steps_of(len(parts.dataset.train))
        longer = {**values, "training": {**values["training"], "max_steps": steps}}
        jobs.append((LONG, [(parse_methods(DEFAULT, {})[0], instance[1])], longer))
    for name, one, own in jobs:
        with tempfile.TemporaryDirectory() as folder:
            entrants = make_entrants(one, own, deck, Path(folder), None)
            append(instance, name, trained(deck, parts, entrants, scoring, Path(folder)))


def trained(deck: td.Deck, parts: Any, entrants: dict[str, Entrant], scoring: Scoring, folder: Path) -> dict[str, Any]:
    """Train one candidate to its end, scored at each rung, and at its end on the untouched examples."""
    ((name, entrant),) = entrants.items()
    held_out, took = parts.dataset.evaluation, 0.0
    row: dict[str, Any] = {"size": entrant.size, "held_out": [], "chances": [], "test": [], "train_s": []}
    began = time.process_time()
    deck.add(name, entrant.config.method, seed=entrant.seed)
    run = StagedRun(deck, name, parts.dataset, entrant.config.training, folder)
    row["start_s"] = round(time.process_time() - began, 3)
    for share in shares_of(len(parts.dataset.train)):
        began = time.process_time()
        run.train_to(share, StopSignals())
        row["train_s"].append(round(time.process_time() - began, 3))
        began = time.process_time()
        scores, chances = scoring.scores_and_chances(deck, name, parts.dataset, held_out)
        took += time.process_time() - began
        row["held_out"].append(digits(scores))
        row["chances"].append(hundredths(chances))
    row["test"].append(digits(scoring.scores(deck, name, parts.dataset, parts.test)))
    run.close()
    deck.remove(name)
    row["row_s"] = took / len(row["train_s"]) / len(held_out)
    return row


def again(instance: Instance, options: argparse.Namespace) -> None:
    """Measure the starts of a data set and seed again and write them into its rows."""
    rows = read_rows()
    known = {row["name"]: row for row in rows if row["instance"] == list(instance)}
    values, scoring = values_of(instance, options.test), Scoring("accuracy", False)
    dataset = td.Classify(max_length=64).read(td.DataSettings(**values["data"]))
    parts = divided(dataset, "accuracy", instance[1])
    candidates = [(one, instance[1]) for one in chosen(options.candidates) if one.name in known]
    with empty_cache(), tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        deck, _ = choose_base(values, [values["model"]], parts, scoring, lambda text: None)
        entrants = make_entrants(candidates, values, deck, Path(folder), None)
        load_s, speeds, starts = time.process_time() - began, [], {}
        for name, entrant in entrants.items():
            began = time.process_time()
            deck.add(name, entrant.config.method, seed=entrant.seed)
            run = StagedRun(deck, name, parts.dataset, entrant.config.training, Path(folder))
            starts[name], began = time.process_time() - began, time.process_time()
            scoring.scores(deck, name, parts.dataset, parts.dataset.evaluation)
            took = (time.process_time() - began) / len(parts.dataset.evaluation)
            speeds.append(known[name]["row_s"] / took)
            run.close()
            deck.remove(name)
    then = median(speeds)
    known[FLOOR]["start_s"] = round(load_s * then, 3)
    known[LONG]["start_s"] = round(starts[candidates[0][0].name] * then, 3)
    for name, start_s in starts.items():
        known[name]["start_s"] = round(start_s * then, 3)
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(instance, f"load {load_s:.2f} s, starts {sum(starts.values()):.2f} s, times {then:.2f}", flush=True)


@contextmanager
def empty_cache() -> Iterator[None]:
    """A cache with the bundled parts alone."""
    before, kept = os.environ.get("TUNEDECK_CACHE"), cache_folder()
    with tempfile.TemporaryDirectory() as folder:
        for part in kept.iterdir():
            if part.name not in ("vectors", "heads"):
                (Path(folder) / part.name).symlink_to(part)
        os.environ["TUNEDECK_CACHE"] = folder
        yield
    if before is None:
        del os.environ["TUNEDECK_CACHE"]
    else:
        os.environ["TUNEDECK_CACHE"] = before


def digits(scores: Any) -> str:
    return "".join(str(int(score)) for score in scores)


def hundredths(chances: Any) -> str:
    """Write two digits for each."""
    return "".join(f"{min(99, round(100 * chance)):02d}" for chance in chances)


def append(instance: Instance, name: str, row: dict[str, Any]) -> None:
    OUT.parent.mkdir(exist_ok=True)
    with OUT.open("a") as file:
        file.write(json.dumps({"instance": list(instance), "name": name, **row}) + "\n")
    print(instance, name, row["train_s"], [one.count("1") / len(one) for one in row["test"]], flush=True)


def live(instance: Instance, options: argparse.Namespace) -> None:
    """Run a real race beside the replay of its curves."""
    instances = list(curves_of(read_rows()))
    curves, order = dict(instances)[instance], preferred(instance[0], instances)
    winner, found = raced(instance, curves, order)
    entered = sorted((text_of(one) for one in chosen(options.candidates)), key=lambda pair: order.index(pair[0]))
    with empty_cache(), tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        named = [text for _, text in entered]
        race = td.race(values_of(instance, options.test), candidates=named, out=folder, progress=False)
        took = time.process_time() - began
    all_s = curves[FLOOR].start_s + sum(one.whole_s() for name, one in curves.items() if name not in (FLOOR, LONG))
    verdict = race.verdict
    print(f"{instance}: live {verdict.name} {verdict.untouched:.3f} in {took:.0f} s, {took / all_s:.1%} of all;")
    print(
        f"  replayed {winner} {found.test.mean():.3f} in {found.seconds:.0f} s, {found.seconds / all_s:.1%}", flush=True
    )


def text_of(candidate: Candidate) -> tuple[str, str]:
    """A candidate's name, and how it is written."""
    settings = {**candidate.method, **candidate.training}
    texts = [f"{key}={settings[key]}" for key in sorted(candidate.given)]
    return candidate.name, ":".join([candidate.name.split()[0], *texts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "starts", "table", "live"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--seeds", type=int, default=4, help="how many")
    parser.add_argument(
        "--rows", type=int, default=2400, help="training examples, those held out for the race included"
    )
    parser.add_argument("--test", type=int, default=500, help="untouched examples")
    parser.add_argument("--candidates", type=int, default=30)
    options = parser.parse_args()
    if options.what == "table":
        table()
        return
    if options.what == "starts":
        for instance, _ in list(curves_of(read_rows())):
            again(instance, options)
        return
    for seed in range(options.seeds):
        for name in options.sets:
            instance = (name, seed, options.rows)
            (record if options.what == "record" else live)(instance, options)


if __name__ == "__main__":
    main()
