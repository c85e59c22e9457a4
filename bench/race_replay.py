"""Curves of candidates trained to their end, and the searches that are replayed from them; see race.py."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna

from tunedeck.comparison.race.contest import SHARES, Answer, Contest, ladder_of
from tunedeck.comparison.report.interval import of_median, over_examples
from tunedeck.core.run_length import steps_per_epoch, total_steps

OUT = Path(__file__).parent / "results" / "race.jsonl"
LONGER = 4
"""The default LoRA with the whole budget trains this many times as long: what a race of thirty costs."""
FLOOR = "(head)"
LONG = "(default, longer)"
ORDERS = 40

Instance = tuple[str, int, int]
"""Data set, seed, number of examples."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One candidate: held-out scores and chances at each rung, untouched scores at its end, and what it took."""

    size: int
    held_out: list[np.ndarray]
    chances: list[np.ndarray | None]
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


def steps_of(examples: int) -> int:
    return total_steps(None, steps_per_epoch(examples, 32, 1))


def shares_of(examples: int) -> tuple[float, ...]:
    return ladder_of(steps_of(examples), 32, 1).shares


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
    texts = row.get("chances", [""] * len(held_out))  # rows of earlier versions have none
    chances = [
        np.array([int(one[at : at + 2]) / 100 for at in range(0, len(one), 2)]) if one else None for one in texts
    ]
    return Curve(row["size"], held_out, chances, test, row["train_s"], row["start_s"], row["row_s"])


@dataclass(frozen=True, slots=True)
class Found:
    """The untouched scores of what a search chose, and its seconds."""

    test: np.ndarray
    seconds: float


def pick(curves: dict[str, Curve], names: Sequence[str]) -> np.ndarray:
    """The untouched scores of the best on the held-out examples at its end, or of the head if none is better."""
    best = max([FLOOR, *names], key=lambda name: curves[name].held_out[-1].mean())
    return curves[best].test[-1]


def preferred(data: str, instances: Sequence[tuple[Instance, dict[str, Curve]]]) -> list[str]:
    """The candidates in the order of their mean untouched accuracy on the other data sets, as a portfolio has it."""
    gains: dict[str, list[float]] = {}
    for (own, _, _), curves in instances:
        names = [name for name in curves if name not in (FLOOR, LONG)]
        middle = fmean(curves[name].test[-1].mean() for name in names)
        for name in names:
            gains.setdefault(name, []).extend([curves[name].test[-1].mean() - middle] if own != data else [])
    return sorted(gains, key=lambda name: -fmean(gains[name] or [0.0]))


def raced(instance: Instance, curves: dict[str, Curve], order: Sequence[str]) -> tuple[str, Found]:
    """Replay the race; its cost includes loading and the head on the frozen base."""
    entered = {name: curves[name] for name in order if name in curves}
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
            chances = one.chances[ask.rung]
            chances = None if chances is None else chances[:rows]
            ask = asks.send(Answer(one.held_out[ask.rung][:rows], seconds, one.train_s[ask.rung], at_s, "", chances))
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
    better, worse = 0, 0
    instances = list(curves_of(read_rows()))
    for instance, curves in instances:
        names = [name for name in curves if name not in (FLOOR, LONG)]
        best, all_s = pick(curves, names), curves[FLOOR].start_s + sum(curves[name].whole_s() for name in names)
        order = preferred(instance[0], instances)
        winner, race = raced(instance, curves, order)
        apart = over_examples((best - race.test).tolist())
        better, worse = better + (apart.high < 0), worse + (apart.low > 0)
        first = Found(pick(curves, order[:1]), curves[FLOOR].start_s + curves[order[0]].whole_s())
        longer = Found(pick(curves, [LONG]), curves[FLOOR].start_s + curves[LONG].whole_s())
        sides = {
            "race": [race],
            "random search": in_orders(curves, random_search, race.seconds),
            "successive halving (optuna)": in_orders(curves, halving, race.seconds),
            "the first of the order, alone": [first],
            f"default LoRA, {LONGER} times as long": [longer],
        }
        print(f"{instance}: {len(names)} candidates, best {best.mean():.3f}, head {curves[FLOOR].test[0].mean():.3f};")
        print(f"  race: {winner} {race.test.mean():.3f}, {race.seconds / all_s:.1%} of the time of all, {all_s:.0f} s")
        for side, found in sides.items():
            regrets.setdefault(side, []).append(100 * (best.mean() - fmean(one.test.mean() for one in found)))
            costs.setdefault(side, []).append(100 * fmean(one.seconds for one in found) / all_s)
    if not instances:
        return
    alike = len(instances) - better - worse
    print(f"\nThe race's winner and the best of all cannot be told apart in {alike} of {len(instances)};")
    print(f"in {better} the winner is better, in {worse} it is worse.\n")
    print("| search | cost, % of training all | regret, points: median | its 95 % interval | mean | largest |")
    print("|---|--:|--:|--:|--:|--:|")
    for side, found in regrets.items():
        interval = of_median(found)
        span = f"{interval.low:+.1f} to {interval.high:+.1f}"
        cost = f"{median(costs[side]):.1f} ({min(costs[side]):.1f} to {max(costs[side]):.1f})"
        print(f"| {side} | {cost} | {median(found):+.1f} | {span} | {fmean(found):+.1f} | {max(found):+.1f} |")
