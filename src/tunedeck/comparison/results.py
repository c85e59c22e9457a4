"""Combine the results of the runs and later measurements into the values of a report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tunedeck.comparison.hindsight import CURRENCY, predicted_and_actual
from tunedeck.comparison.latency import measure_serving
from tunedeck.comparison.quality import answers_of, behind, confusion_and_mistakes, interval_of, texts_of
from tunedeck.comparison.report.values import Data, Entry, Forecast, Price, Repeat, SeedRun, Serving
from tunedeck.comparison.result import Comparison
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Measurement
from tunedeck.core.values import from_values
from tunedeck.planner.hindsight import PredictedAndActual
from tunedeck.tasks.base import HeldOut
from tunedeck.tasks.registry import comparing_of, view_of

if TYPE_CHECKING:
    from tunedeck.comparison.runs import Run
    from tunedeck.comparison.spec import ComparisonSpec
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.base import Dataset

POINTS = 200
"""The most points of a learning curve; longer ones are averaged down to this number."""
LONGEST_TIMED = 256
"""Tokens of a text that is timed, at most."""


def build_comparison(
    spec: ComparisonSpec,
    runs: Sequence[Run],
    dataset: Dataset[Any],
    metric: str,
    deck: Deck,
    load_ms: dict[str, float],
    tried: Sequence[dict[str, Any]],
    began: float,
) -> Comparison:
    """Return the comparison; times the loaded adapters and reads the best one's predictions."""
    spec.tell(say("timing the adapters on one base ..."))
    serving, base_ms, base_rate = measure_serving(deck, load_ms, texts_of(deck, dataset), LONGEST_TIMED)
    spec.tell(say("answering the held-out examples ..."))
    asked = spec.candidates if len(spec.seeds) == 1 else ()
    answers = {one.name: answers_of(deck, one.name, dataset, metric) for one in asked}
    entries = []
    for candidate in spec.candidates:
        own = [run for run in runs if run.candidate.name == candidate.name]
        entries.append(_entry(own, serving[candidate.name], deck, metric, spec.price, answers.get(candidate.name)))
    entries = _forgetting(deck, entries)
    found = Comparison(
        task=deck.task.kind,
        model=runs[0].config.model,
        data=_data(deck, dataset),
        budget=spec.budget,
        seeds=spec.seeds,
        metric=metric,
        higher_is_better=metric not in view_of(deck.task).lower_is_better,
        entries=tuple(entries),
        base_latency_ms=base_ms,
        base_texts_per_s=base_rate,
        price=spec.price,
        confusion=None,
        mistakes=(),
        search=tuple(tried),
        repeat=_repeat(spec.command, _measurement(runs[0])),
        total_s=0.0,
        folder=str(spec.folder),
    )
    best = found.best.name
    if best not in answers:
        answers[best] = answers_of(deck, best, dataset, metric)
    confusion, mistakes = confusion_and_mistakes(deck, best, dataset, answers[best])
    found = replace(found, entries=_behind(found, answers))
    scaling = comparing_of(deck.task).scaling
    measured = None if scaling is None else scaling(deck, best, dataset, answers[best])
    return replace(found, confusion=confusion, mistakes=mistakes, scaling=measured, total_s=time.perf_counter() - began)


def _forgetting(deck: Deck, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with what each has forgotten, where the task measures it."""
    loss = comparing_of(deck.task).loss_on_other_text
    if loss is None:
        return list(entries)
    before = loss(deck, None)
    return [replace(entry, forgetting=loss(deck, entry.name) - before) for entry in entries]


def _data(deck: Deck, dataset: Dataset[Any]) -> Data:
    majority = comparing_of(deck.task).majority
    return Data(
        source=dataset.source,
        sha256=dataset.sha256,
        train=len(dataset.train),
        held_out=len(dataset.evaluation),
        majority=None if majority is None else majority(dataset),
    )


def _repeat(command: str, measured: Measurement) -> Repeat:
    from tunedeck.formats.manifest import versions

    cpu = say("{cpu}, {cores} cores", cpu=measured.machine.cpu, cores=measured.machine.cpu_cores)
    return Repeat(
        command=command,
        versions={**versions(), "python": platform.python_version()},
        machine=measured.machine.gpu or cpu,
        device=measured.device,
        dtype=measured.dtype,
    )


def _behind(found: Comparison, answers: dict[str, HeldOut]) -> tuple[Entry, ...]:
    """Return the entries with how far each is behind the best."""
    best = found.best
    sign = 1 if found.higher_is_better else -1

    def one(entry: Entry) -> Entry:
        pairs = zip(best.runs, entry.runs, strict=True)
        differences = [sign * (ahead.metrics[found.metric] - own.metrics[found.metric]) for ahead, own in pairs]
        ahead_of, late = answers.get(best.name), answers.get(entry.name)
        return replace(entry, behind=behind(ahead_of, late, differences, found.higher_is_better))

    return tuple(entry if entry is best else one(entry) for entry in found.entries)


def _entry(
    runs: Sequence[Run], serving: Serving, deck: Deck, metric: str, price: Price | None, answers: HeldOut | None
) -> Entry:
    from tunedeck.formats.folder import adapter_bytes

    name = runs[0].candidate.name
    done = [_seed_run(run) for run in runs]
    summary = deck.summary(name)
    train_s = fmean(one.train_s for one in done)
    losses, evaluations = _curves(runs[0], metric)
    return Entry(
        name=name,
        settings=_settings(runs[0]),
        metrics={key: fmean(one.metrics[key] for one in done) for key in done[0].metrics},
        interval=interval_of(answers, [one.metrics[metric] for one in done]),
        behind=None,
        trainable_parameters=summary.trainable_parameters,
        trainable_share=summary.trainable_share,
        method_parameters=summary.method_parameters,
        disk_bytes=adapter_bytes(runs[0].adapter),
        train_s=train_s,
        peak_memory_bytes=max(one.peak_memory_bytes for one in done),
        serving=serving,
        cost=None if price is None else price.per_hour * train_s / 3600,
        planned=_planned(runs[0], price),
        losses=losses,
        evaluations=evaluations,
        runs=tuple(done),
    )


def _seed_run(run: Run) -> SeedRun:
    measured = _measurement(run)
    return SeedRun(
        seed=run.seed,
        folder=f"runs/{run.candidate.folder}/{run.folder.name}",
        metrics=run.manifest().metrics,
        train_s=measured.start_s + measured.train_s,
        eval_s=measured.eval_s,
        peak_memory_bytes=measured.peak_memory_bytes,
        steps=measured.steps,
        stopped=run.read("metrics.json")["stopped"],
        planned_steps=measured.planned_steps,
        saved_s=measured.saved_s,
    )


def _measurement(run: Run) -> Measurement:
    return from_values(Measurement, run.read("measurement.json"), "measurement")


def _settings(run: Run) -> dict[str, Any]:
    training, method = run.config.training, run.config.method
    rate = training.learning_rate or method.learning_rate
    named = {key: value for key, value in run.candidate.training.items() if value is not None}
    return {**run.candidate.method, **named, "learning_rate": rate}


def _planned(run: Run, price: Price | None) -> tuple[Forecast, ...]:
    per_hour, currency = (price.per_hour, price.currency) if price else (None, CURRENCY)

    def forecast(one: PredictedAndActual) -> Forecast:
        low, expected, high = one.predicted.low, one.predicted.expected, one.predicted.high
        return Forecast(one.quantity, low, expected, high, one.actual, one.unit, one.reason)

    return tuple(map(forecast, predicted_and_actual(_measurement(run), run.config, per_hour, currency)))


def _curves(run: Run, metric: str) -> tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]:
    """(examples seen, loss) of the steps, averaged down to POINTS, and (examples seen, quality) of the evaluations."""
    lines = (run.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    each = run.config.training.batch_size * run.config.training.gradient_accumulation_steps
    steps = [(float(event["step"] * each), float(event["loss"])) for event in events if event["event"] == "step"]
    width = max(1, -(-len(steps) // POINTS))  # head only takes no step
    losses = [
        (steps[start : start + width][-1][0], fmean(loss for _, loss in steps[start : start + width]))
        for start in range(0, len(steps), width)
    ]
    evaluations = [(float(event["step"] * each), float(event[metric])) for event in events if event["event"] == "eval"]
    return tuple(losses), tuple(evaluations)
