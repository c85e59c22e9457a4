"""What a race costs and loses: all candidates trained to their end, and races replayed from their curves.

    python bench/race.py record --sets tweets intents-en --seeds 1 --rows 480    # resumes; results/race.jsonl
    python bench/race.py table                                                   # what is known so far
    python bench/race.py live --sets intents-en --seeds 1 --rows 480             # real races beside their replays

`record` trains every candidate to its end, scored at each rung on all held-out and all untouched examples, one data set
and seed after another. A seed draws the examples, their division and the first weights. `table` replays, from these
curves: the race, random search, optuna's successive halving (both until they have cost what the race did, many orders),
and the default LoRA that gets the whole budget as epochs. Seconds are of the processor. Regret is the accuracy on the
untouched examples of the candidate that full training of all would have chosen on the held-out ones, minus that of the
one found.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna

import tunedeck as td
from tunedeck.comparison.grammar import Candidate, parse_methods
from tunedeck.comparison.race.bases import choose_base
from tunedeck.comparison.race.contest import SHARES, Answer, Contest, ladder_of
from tunedeck.comparison.race.entrants import Entrant, make_entrants
from tunedeck.comparison.race.parts import divided
from tunedeck.comparison.race.scores import Scoring
from tunedeck.comparison.report.interval import of_median, over_examples
from tunedeck.core.run_length import steps_per_epoch, total_steps
from tunedeck.training.signals import StopSignals
from tunedeck.training.stages import StagedRun

OUT = Path(__file__).parent / "results" / "race.jsonl"
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
    "full:layers=2:learning_rate=1e-4,3e-4",
    "full:learning_rate=1e-5,3e-5,1e-4",
    "ia3:learning_rate=1e-3,5e-3,2e-2",
    "bias:learning_rate=1e-3,3e-3,1e-2",
    "prompt_tuning:learning_rate=3e-3,1e-2,5e-2",
)
"""Thirty."""
LONGER = 4
"""The default LoRA with the whole budget trains this many times as long: what a race of thirty costs."""
FLOOR = "(head)"
LONG = "(default, longer)"
ORDERS = 40


@dataclass(frozen=True, slots=True)
class Curve:
    """One candidate: at each rung the scores of held-out and of untouched examples, and what it took."""

    size: int
    held_out: list[np.ndarray]
    test: list[np.ndarray]
    train_s: list[float]
    start_s: float
    row_s: float
    """Seconds of scoring one example."""

    def seconds(self, rung: int, rows: int) -> float:
        """Seconds of going from the rung before to this one."""
        return self.train_s[rung] + (self.start_s if rung == 0 else 0.0) + self.row_s * rows

    def whole_s(self) -> float:
        """Seconds of a whole run with one evaluation at its end."""
        return sum(self.train_s) + self.start_s + self.row_s * len(self.held_out[-1])


Instance = tuple[str, int, int]
"""Data set, seed, number of examples."""


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
        test = scoring.scores(deck, "head only", parts.dataset, parts.test)
        row = {"held_out": [digits(bases[0].scores)], "test": [digits(test)], "train_s": [], "start_s": load_s}
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
    """Train one candidate to its end and score it at each rung; seconds are of the processor."""
    ((name, entrant),) = entrants.items()
    held_out, took = parts.dataset.evaluation, 0.0
    row: dict[str, Any] = {"size": entrant.size, "held_out": [], "test": [], "train_s": []}
    began = time.process_time()
    deck.add(name, entrant.config.method, seed=entrant.seed)
    run = StagedRun(deck, name, parts.dataset, entrant.config.training, folder)
    row["start_s"] = round(time.process_time() - began, 3)
    for share in shares_of(len(parts.dataset.train)):
        began = time.process_time()
        run.train_to(share, StopSignals())
        row["train_s"].append(round(time.process_time() - began, 3))
        began = time.process_time()
        row["held_out"].append(digits(scoring.scores(deck, name, parts.dataset, held_out)))
        row["test"].append(digits(scoring.scores(deck, name, parts.dataset, parts.test)))
        took += time.process_time() - began
    run.close()
    deck.remove(name)
    row["row_s"] = took / len(row["train_s"]) / (len(held_out) + len(parts.test))
    return row


def steps_of(examples: int) -> int:
    return total_steps(None, steps_per_epoch(examples, 32, 1))


def shares_of(examples: int) -> tuple[float, ...]:
    return ladder_of(steps_of(examples), 32, 1).shares


def digits(scores: Any) -> str:
    return "".join(str(int(score)) for score in scores)


def append(instance: Instance, name: str, row: dict[str, Any]) -> None:
    OUT.parent.mkdir(exist_ok=True)
    with OUT.open("a") as file:
        file.write(json.dumps({"instance": list(instance), "name": name, **row}) + "\n")
    print(instance, name, row["train_s"], [one.count("1") / len(one) for one in row["test"]], flush=True)


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []


def curves_of(rows: list[dict[str, Any]]) -> Iterator[tuple[Instance, dict[str, Curve]]]:
    """The curves of each data set and seed that is complete."""
    for instance in dict.fromkeys(tuple(row["instance"]) for row in rows):
        own = {row["name"]: row for row in rows if tuple(row["instance"]) == instance}
        if {FLOOR, LONG} <= set(own):
            yield instance, {name: curve(row) for name, row in own.items()}


def curve(row: dict[str, Any]) -> Curve:
    held_out, test = ([np.array([*map(float, one)]) for one in row[key]] for key in ("held_out", "test"))
    return Curve(row["size"], held_out, test, row["train_s"], row["start_s"], row["row_s"])


@dataclass(frozen=True, slots=True)
class Found:
    """The untouched scores of what a search chose, and its seconds."""

    test: np.ndarray
    seconds: float


def pick(curves: dict[str, Curve], names: Sequence[str]) -> np.ndarray:
    """The untouched scores of the best on the held-out examples at its end, or of the head if none is better."""
    best = max([FLOOR, *names], key=lambda name: curves[name].held_out[-1].mean())
    return curves[best].test[-1]


def raced(instance: Instance, curves: dict[str, Curve]) -> tuple[str, Found]:
    """Replay the race; its cost includes loading and the head on the frozen base."""
    entered = {name: one for name, one in curves.items() if name not in (FLOOR, LONG)}
    held_out = len(curves[FLOOR].held_out[0])
    examples = instance[2] - held_out
    ladder = ladder_of(steps_of(examples), 32, held_out)
    contest = Contest({name: one.size for name, one in entered.items()}, ladder)
    asks, at_s = contest.asks(), curves[FLOOR].start_s
    try:
        ask = next(asks)
        while True:
            one, rows = entered[ask.name], contest.ladder.rows[ask.rung]
            seconds = one.seconds(ask.rung, rows)
            at_s += seconds
            ask = asks.send(Answer(one.held_out[ask.rung][:rows], seconds, one.train_s[ask.rung], at_s))
    except StopIteration as end:
        winner = end.value.winner
    return winner, Found(pick(curves, [winner]), at_s)


def random_search(curves: dict[str, Curve], names: list[str], budget_s: float) -> Found:
    """Train whole runs until the budget is spent; the first in any case."""
    spent, tried = curves[FLOOR].start_s, []
    for name in names:
        if tried and spent + curves[name].whole_s() > budget_s:
            break
        spent += curves[name].whole_s()
        tried.append(name)
    return Found(pick(curves, tried), spent)


def halving(curves: dict[str, Curve], names: list[str], budget_s: float) -> Found:
    """Optuna's successive halving over the same rungs, one trial after another, until the budget is spent."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    spent, whole = curves[FLOOR].start_s, []
    for name in names:
        one, trial, rungs = curves[name], study.ask(), len(curves[name].train_s)
        for rung in range(rungs):
            spent += one.seconds(rung, len(one.held_out[rung]))
            trial.report(float(one.held_out[rung].mean()), 3 ** (rung + len(SHARES) - rungs))
            if rung < rungs - 1 and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            whole.append(name)
            study.tell(trial, float(one.held_out[-1].mean()))
        if spent > budget_s:
            break
    return Found(pick(curves, whole), spent)


def in_orders(curves: dict[str, Curve], search: Callable[..., Found], budget_s: float) -> list[Found]:
    names = [name for name in curves if name not in (FLOOR, LONG)]
    return [search(curves, random.Random(order).sample(names, len(names)), budget_s) for order in range(ORDERS)]


def table() -> None:
    """Print the searches as Markdown."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    regrets: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    alike = 0
    instances = list(curves_of(read_rows()))
    for instance, curves in instances:
        names = [name for name in curves if name not in (FLOOR, LONG)]
        best, all_s = pick(curves, names), curves[FLOOR].start_s + sum(curves[name].whole_s() for name in names)
        winner, race = raced(instance, curves)
        apart = over_examples((best - race.test).tolist())
        alike += apart.low <= 0 <= apart.high
        longer = Found(pick(curves, [LONG]), curves[FLOOR].start_s + curves[LONG].whole_s())
        sides = {
            "race": [race],
            "random search": in_orders(curves, random_search, race.seconds),
            "successive halving (optuna)": in_orders(curves, halving, race.seconds),
            f"default LoRA, {LONGER} times as long": [longer],
        }
        print(f"{instance}: {len(names)} candidates, best {best.mean():.3f}, head {curves[FLOOR].test[0].mean():.3f};")
        print(f"  race: {winner} {race.test.mean():.3f}, {race.seconds / all_s:.1%} of the time of all, {all_s:.0f} s")
        for side, found in sides.items():
            regrets.setdefault(side, []).append(100 * (best.mean() - fmean(one.test.mean() for one in found)))
            costs.setdefault(side, []).append(100 * fmean(one.seconds for one in found) / all_s)
    if not instances:
        return
    print(f"\nThe race's winner and the best of all cannot be told apart in {alike} of {len(instances)}.\n")
    print("| search | cost, % of training all | regret, points: median | its 95 % interval | largest |")
    print("|---|--:|--:|--:|--:|")
    for side, found in regrets.items():
        interval = of_median(found)
        span = f"{interval.low:+.1f} to {interval.high:+.1f}"
        print(f"| {side} | {median(costs[side]):.1f} | {median(found):+.1f} | {span} | {max(found):+.1f} |")


def live(instance: Instance, options: argparse.Namespace) -> None:
    """Run a real race beside the replay of its curves."""
    curves = dict(curves_of(read_rows()))[instance]
    winner, found = raced(instance, curves)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        named = list(CANDIDATES)
        race = td.race(values_of(instance, options.test), candidates=named, out=folder, progress=False)
        took = time.process_time() - began
    all_s = curves[FLOOR].start_s + sum(one.whole_s() for name, one in curves.items() if name not in (FLOOR, LONG))
    verdict = race.verdict
    print(f"{instance}: live {verdict.name} {verdict.untouched:.3f} in {took:.0f} s, {took / all_s:.1%} of all;")
    print(f"  replayed {winner} {found.test.mean():.3f} in {found.seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "table", "live"])
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
    for seed in range(options.seeds):
        for name in options.sets:
            instance = (name, seed, options.rows)
            (record if options.what == "record" else live)(instance, options)


if __name__ == "__main__":
    main()
