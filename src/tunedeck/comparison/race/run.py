"""Run a race: bases, candidates, rungs, the winner."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from tunedeck.comparison.race.bases import choose_base
from tunedeck.comparison.race.contest import Answer, Ask, Contest, RaceOutcome, ladder_of
from tunedeck.comparison.race.entrants import make_entrants
from tunedeck.comparison.race.finish import Run, finished
from tunedeck.comparison.race.log import RaceLog
from tunedeck.comparison.race.parts import Parts, divided
from tunedeck.comparison.race.result import Race
from tunedeck.comparison.race.rung_trainer import RungTrainer
from tunedeck.comparison.race.runner import Runner
from tunedeck.comparison.race.scores import Scoring, scoring_of
from tunedeck.comparison.race.spec import RaceSpec
from tunedeck.comparison.race.spread import Shared, Spread
from tunedeck.comparison.race.standing import write_standing
from tunedeck.comparison.race.words import reason_text
from tunedeck.comparison.ray_tasks import RayTasks, ray_cluster
from tunedeck.comparison.report.recommend import metric_name
from tunedeck.core.i18n import say
from tunedeck.core.measurement import PeakMemory
from tunedeck.core.run_length import steps_per_epoch, total_steps
from tunedeck.core.units import duration
from tunedeck.tasks.registry import task_of
from tunedeck.training.config import TrainingSettings, run_config
from tunedeck.training.lock import locked
from tunedeck.training.signals import StopSignals


def run_race(spec: RaceSpec) -> Race:
    """Run or resume a race; raises what `race` raises, and says after an interruption how to resume."""
    with locked(spec.folder):
        try:
            return _run_race(spec)
        except KeyboardInterrupt:
            spec.tell(say("the race is kept in {path}; run the same command again to resume", path=spec.folder))
            raise


def _run_race(spec: RaceSpec) -> Race:
    began = time.perf_counter()
    config = run_config(spec.values)
    task = task_of(config.task)
    dataset = task.read(config.data)
    for text in (*dataset.notes, dataset.description):
        spec.tell(text)
    scoring = scoring_of(task, dataset, config.training)
    parts = divided(dataset, scoring.metric, config.data.split_seed)
    log = RaceLog(spec.folder, _setup(spec, parts, scoring))
    with ExitStack() as stack:
        memory = stack.enter_context(PeakMemory())
        ray = None if spec.ray is None else stack.enter_context(ray_cluster(spec.ray, show=spec.progress))
        signals = stack.enter_context(StopSignals())
        deck, bases = choose_base(spec.values, spec.bases, parts, scoring, spec.tell)
        values = {**spec.values, "model": bases[0].reference}
        tell = None if spec.given else spec.tell
        entrants = make_entrants(spec.candidates, values, deck, spec.folder, tell)
        steps = min(_steps(one.config.training, len(parts.dataset.train)) for one in entrants.values())
        each = config.training.batch_size * config.training.gradient_accumulation_steps
        ladder = ladder_of(steps, each, len(parts.dataset.evaluation))
        contest = Contest({name: one.size for name, one in entrants.items()}, ladder, spec.until, spec.limit_s)
        race = Run(spec, deck, parts, scoring, bases, entrants, contest)
        told = partial(_tell_answer, spec, contest, scoring)
        trainer = RungTrainer(deck, parts, scoring, signals)
        stack.callback(trainer.close)
        spread = None
        if ray is not None:
            tasks = RayTasks(ray, signals)
            stack.callback(tasks.stop)
            spread = Spread(tasks, Shared(next(iter(entrants.values())).config, parts, scoring))
        runner = Runner(trainer, entrants, ladder, log, began, told, spread)
        outcome = _played(contest, runner, spec, partial(write_standing, spec, contest, entrants, scoring))
        return finished(race, outcome, runner, memory)


def _played(contest: Contest, runner: Runner, spec: RaceSpec, keep: Callable[[], None]) -> RaceOutcome:
    """Answer a contest's asks until it is over; those that stop are released and told, and the standing is kept."""
    asks, told = contest.asks(), set[str]()
    try:
        ask = next(asks)
        while True:
            keep()
            ask = asks.send(runner.answer(ask, contest.upcoming))
            runner.release(contest.stopped)
            for name in contest.stopped.keys() - told:
                spec.tell("  " + reason_text(name, contest.stopped[name], contest.ladder.shares))
            told = set(contest.stopped)
    except StopIteration as end:
        keep()
        outcome: RaceOutcome = end.value
        return outcome


def _tell_answer(spec: RaceSpec, contest: Contest, scoring: Scoring, ask: Ask, answer: Answer) -> None:
    if answer.failed:
        return
    spec.tell(
        say(
            "rung {rung} of {rungs}: {name}: {metric} {value:.3f} on {rows} held-out examples, {seconds}",
            rung=ask.rung + 1,
            rungs=len(contest.ladder.shares),
            name=ask.name,
            metric=metric_name(scoring.metric),
            value=scoring.shown(float(answer.scores.mean())),
            rows=len(answer.scores),
            seconds=duration(answer.seconds),
        )
    )


def _steps(settings: TrainingSettings, examples: int) -> int:
    per_epoch = steps_per_epoch(examples, settings.batch_size, settings.gradient_accumulation_steps)
    return settings.max_steps or total_steps(settings.epochs, per_epoch)


def _setup(spec: RaceSpec, parts: Parts, scoring: Scoring) -> dict[str, Any]:
    """Return all that every answer of a race depends on, besides a candidate's settings."""
    config = run_config(spec.values).model_dump(mode="json", exclude={"method", "name", "out", "model"})
    held_out = hashlib.sha256("\n".join(map(repr, parts.dataset.evaluation)).encode("utf-8", "surrogatepass"))
    digests = {"examples": parts.dataset.sha256, "held out": held_out.hexdigest()}
    return {"bases": list(spec.bases), **config, **digests, "metric": scoring.metric}
