"""Measure the winner on untouched examples, save it, and put together what a race has found."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast, final

import torch

from tunedeck.comparison.race.bases import FLOOR, Base
from tunedeck.comparison.race.contest import Contest, RaceOutcome, Stop
from tunedeck.comparison.race.entrants import Entrant
from tunedeck.comparison.race.parts import Parts
from tunedeck.comparison.race.result import Race
from tunedeck.comparison.race.runner import Runner
from tunedeck.comparison.race.scores import Scoring
from tunedeck.comparison.race.sequential import Array
from tunedeck.comparison.race.spec import RaceSpec
from tunedeck.comparison.race.values import Point, Raced, Rung0, Verdict
from tunedeck.comparison.race.words import reason_text
from tunedeck.comparison.report.interval import over_examples
from tunedeck.comparison.report.values import Data, Interval, Price, Repeat
from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.measurement import PeakMemory, this_machine
from tunedeck.deck.deck import Deck
from tunedeck.formats.manifest import DataRecord, versions
from tunedeck.tasks.base import TrainableTask
from tunedeck.tasks.registry import comparing_of
from tunedeck.training.record import read_run, without_temperature
from tunedeck.training.resume import is_finished

_NORMAL_95 = 1.959964


@final
@dataclass(frozen=True, slots=True)
class Run:
    """A race that is being run: what it was made of, and the contest that decides."""

    spec: RaceSpec
    deck: Deck
    parts: Parts
    scoring: Scoring
    bases: Sequence[Base]
    """The chosen one first."""
    entrants: Mapping[str, Entrant]
    contest: Contest

    def scores(self, name: str, examples: Sequence[Any]) -> Array:
        """Return an adapter's scores of examples."""
        return self.scoring.scores(self.deck, name, self.parts.dataset, examples)

    def shown(self, scores: Array) -> float:
        """Return the metric of scores."""
        return self.scoring.shown(float(scores.mean()))


def finished(run: Run, outcome: RaceOutcome, runner: Runner, memory: PeakMemory) -> Race:
    """Return the race with its verdict; the winner, or the head on the frozen base, is in the folder's adapter/.

    Raises TrainingError where no candidate could be trained and there is no such head.
    """
    contest, floor, winner = run.contest, run.bases[0].scores, outcome.winner
    if winner is None and floor is None:
        reason = next((stop.text for stop in contest.stopped.values() if stop.text), "")
        raise TrainingError(say("no candidate could be trained: {reason}", reason=reason))
    kept, raced = (0, 0), floor
    if winner is not None:
        kept = _winner(run.deck, run.entrants[winner], runner)
        raced = run.scores(winner, run.parts.dataset.evaluation)
        if floor is not None and raced.mean() <= floor.mean():
            contest.stopped[winner] = Stop("not best", contest.rung_of(winner), FLOOR)
            winner, raced, kept = None, floor, (0, 0)
    assert raced is not None
    verdict = _verdict(run, winner or FLOOR, raced, kept)
    _save(run, verdict)
    whole = winner is not None and contest.rung_of(winner) + 1 == len(contest.ladder.shares)
    if winner is not None and whole and not is_finished(run.entrants[winner].folder):
        runner.run_of(winner).finish(verdict.metrics, memory.peak_bytes)
    return _race(run, outcome, verdict, runner.at_s())


def _winner(deck: Deck, entrant: Entrant, runner: Runner) -> tuple[int, int]:
    """Leave the winner's adapter on the deck in its best state; return that state's step and the run's steps."""
    if is_finished(entrant.folder):  # by an earlier call
        deck.load_adapter(entrant.folder / "adapter", entrant.name)
        run = read_run(entrant.name, entrant.folder)
        return run.best_step, run.measurement.steps
    staged = runner.run_of(entrant.name)
    staged.leave()
    return staged.best_step, staged.steps


def _verdict(run: Run, name: str, raced: Array, kept: tuple[int, int]) -> Verdict:
    """Measure an adapter on the untouched examples; `raced` are its scores on those that chose it."""
    test, floor = run.parts.test, None if run.bases[0].scores is None else run.scores(FLOOR, run.parts.test)
    run.spec.tell(say("{name} is measured on {count:,} untouched examples ...", name=name, count=len(test)))
    untouched = run.scores(name, test)
    own = over_examples(untouched.tolist())
    if run.scoring.lower_is_better:
        own = replace(own, low=-own.high, high=-own.low)
    else:  # a share, whose weighted scores may be above 1
        own = replace(own, high=min(own.high, 1.0))
    difference = float(raced.mean() - untouched.mean())
    half = _NORMAL_95 * math.sqrt(raced.var() / len(raced) + untouched.var() / len(untouched))
    measured = replace(run.parts.dataset, train=run.parts.dataset.train[:1], evaluation=test)
    adapter = run.deck.adapter(name)
    task = cast(TrainableTask, adapter.task)
    metrics, confidence = without_temperature(task.objective(run.deck, name, measured).evaluate())
    adapter.manifest = adapter.manifest.model_copy(update={"confidence": confidence})
    return Verdict(
        name=name,
        step=kept[0],
        steps=kept[1],
        raced=run.shown(raced),
        untouched=run.shown(untouched),
        interval=own,
        overstated=Interval(difference - half, difference + half, "examples", len(untouched)),
        floor=None if floor is None else run.shown(floor),
        gain=None if floor is None or name == FLOOR else over_examples((untouched - floor).tolist()),
        metrics=metrics,
    )


def _save(run: Run, verdict: Verdict) -> None:
    """Save the winner with its metrics on the untouched examples."""
    dataset, adapter = run.parts.dataset, run.deck.adapter(verdict.name)
    record = DataRecord(
        source=dataset.source, sha256=dataset.sha256, examples=len(dataset.train), text_column=dataset.text_column
    )
    adapter.manifest = adapter.manifest.model_copy(update={"metrics": verdict.metrics, "data": record})
    run.deck.save(verdict.name, run.spec.folder / "adapter")


def _race(run: Run, outcome: RaceOutcome, verdict: Verdict, total_s: float) -> Race:
    spec, deck, dataset, scoring = run.spec, run.deck, run.parts.dataset, run.scoring
    majority = comparing_of(deck.task).majority
    raced = partial(_raced, contest=run.contest, scoring=scoring, price=spec.price, winner=verdict.name)
    return Race(
        task=deck.task.kind,
        model=deck.base.reference,
        data=Data(
            source=dataset.source,
            sha256=dataset.sha256,
            train=len(dataset.train),
            held_out=len(dataset.evaluation),
            majority=None if majority is None else majority(dataset),
        ),
        untouched=len(run.parts.test),
        metric=scoring.metric,
        higher_is_better=not scoring.lower_is_better,
        candidates=tuple(raced(one) for one in run.entrants.values()),
        bases=tuple(_rung0(base, scoring, number == 0) for number, base in enumerate(run.bases)),
        verdict=verdict,
        ended=outcome.ended,
        until=spec.until,
        alpha=run.contest.alpha,
        price=spec.price,
        repeat=_repeat(spec.command, deck),
        total_s=total_s,
        folder=str(spec.folder),
    )


def _repeat(command: str, deck: Deck) -> Repeat:
    machine, device = this_machine(), deck.model.device
    name = say("{cpu}, {cores} cores", cpu=machine.cpu, cores=machine.cpu_cores)
    return Repeat(
        command=command,
        versions={**versions(), "python": platform.python_version()},
        machine=torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        device=str(device),
        dtype=str(deck.base.dtype).removeprefix("torch."),
    )


def _rung0(base: Base, scoring: Scoring, chosen: bool) -> Rung0:
    quality = None if base.scores is None else scoring.shown(float(base.scores.mean()))
    return Rung0(base.reference, base.parameters, quality, base.seconds, chosen, base.worse)


def _raced(entrant: Entrant, contest: Contest, scoring: Scoring, price: Price | None, winner: str) -> Raced:
    points: list[Point] = []
    spent = 0.0
    for ask, answer in sorted(contest.answers.items(), key=lambda pair: pair[0].rung):
        if ask.name == entrant.name:
            spent += answer.seconds
            if not answer.failed:
                quality = scoring.shown(float(answer.scores.mean()))
                points.append(Point(contest.ladder.shares[ask.rung], len(answer.scores), quality, spent))
    stop: Any = contest.stopped.get(entrant.name)
    won = entrant.name == winner
    return Raced(
        name=entrant.name,
        settings=entrant.settings,
        size=entrant.size,
        status="winner" if won else stop.reason,
        text="" if won else reason_text(entrant.name, stop, contest.ladder.shares),
        points=tuple(points),
        cost=None if price is None else price.per_hour * spent / 3600,
    )
