"""Cross-validation: adapters that are each measured on the part of the texts that they have not seen."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

import yaml

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_json, write_text
from tunedeck.core.student_t import t_95
from tunedeck.data.labelled import Example
from tunedeck.data.prepare import digest, split
from tunedeck.deck.deck import Deck
from tunedeck.deck.reading import check_trains
from tunedeck.deck.task import with_labels
from tunedeck.tasks.base import Dataset, TrainableTask
from tunedeck.tasks.registry import task_of
from tunedeck.training.config import RunConfig
from tunedeck.training.jobs import Job, run_jobs
from tunedeck.training.record import TrainingRun, read_run
from tunedeck.training.resume import CONFIG, is_finished
from tunedeck.training.state import COMPLETE

SUMMARY, PREDICTIONS = "folds.json", "out-of-fold.jsonl"


def fold_folders(folder: Path, folds: int) -> list[Path]:
    """Return the run folders of the adapters of a cross-validation."""
    return [folder / f"fold-{number}" for number in range(1, folds + 1)]


def cross_validate(
    config: RunConfig, out: Path, tell: Callable[[str], None], *, resume: bool, progress: bool
) -> dict[str, TrainingRun]:
    """Train an adapter for each fold, measure it on the fold, and write `folds.json` and `out-of-fold.jsonl`.

    Of the other texts a part is held out, which chooses the best state: a fold decides nothing about its adapter.
    With evaluation data, that is the part. Returns the runs by fold; fewer after Ctrl-C or SIGTERM. Raises ConfigError
    for a task without labelled texts, DataError for fewer texts than folds, and what training raises.
    """
    task = task_of(config.task)
    check_trains(config.method, task)
    dataset = task.read(config.data)
    examples = _examples(dataset, apart=config.data.eval is not None)
    folds = fold_of_each(examples, config.folds or 0, config.data.split_seed)
    for text in (*dataset.notes, dataset.description):
        tell(text)
    deck = Deck.load(
        config.model,
        with_labels(task, dataset.labels or ()),
        dtype=config.dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )
    if not (resume and (out / CONFIG).exists()):
        values = config.model_dump(mode="json")
        write_text(out / CONFIG, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    runs: dict[str, TrainingRun] = {}
    measured: list[dict[str, float]] = []
    rows: dict[int, dict[str, Any]] = {}
    for number, folder in enumerate(fold_folders(out, config.folds or 0), 1):
        test = [place for place, fold in enumerate(folds) if fold == number]
        rest = [example for example, fold in zip(examples, folds, strict=True) if fold != number]
        own = _part(dataset, rest, config)
        runs[folder.name] = run = _trained(deck, config, folder, own, resume=resume, progress=progress)
        if run.stopped not in COMPLETE:
            return runs
        metrics, answers = _measured(deck, folder.name, own, [examples[place] for place in test])
        measured.append(metrics)
        rows |= {place: {**row, "fold": number} for place, row in zip(test, answers, strict=True)}
        deck.remove(folder.name)
        tell(say("fold {number} of {folds}: {metrics}", number=number, folds=config.folds, metrics=_shown(metrics)))
    write_json(out / SUMMARY, summary(measured))
    lines = [json.dumps(rows[place], ensure_ascii=False) for place in range(len(examples))]
    write_text(out / PREDICTIONS, "\n".join(lines) + "\n")
    return runs


def fold_of_each(examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """Return a fold from 1 on for each example; the folds share out each set of labels. DataError for too few."""
    if len(examples) < folds:
        raise DataError(say("{count} texts are fewer than {folds} folds", count=len(examples), folds=folds))
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda place: examples[place].labels)
    found = [0] * len(examples)
    for turn, place in enumerate(order):
        found[place] = turn % folds + 1
    return found


def summary(folds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return the mean of each metric over the folds with a 95 % interval.

    The folds share training texts, so that their variance alone is too small: the corrected interval of Nadeau and
    Bengio (2003), which multiplies it by 1 / folds + test texts / training texts.
    """
    count = len(folds)
    found: dict[str, Any] = {}
    for name in folds[0]:
        values = [fold[name] for fold in folds]
        half = t_95(count - 1) * stdev(values) * math.sqrt(1 / count + 1 / (count - 1))
        found[name] = {"mean": fmean(values), "low": fmean(values) - half, "high": fmean(values) + half}
    return {"folds": list(folds), "metrics": found}


def _examples(dataset: Dataset[Any], *, apart: bool) -> list[Example]:
    found = list(dataset.train) if apart else [*dataset.train, *dataset.evaluation]
    if not all(isinstance(example, Example) for example in found):
        raise ConfigError(say("folds are for labelled texts; train this task without folds"))
    return found


def _part(dataset: Dataset[Any], rest: Sequence[Example], config: RunConfig) -> Dataset[Any]:
    """Return the data of one fold's run."""
    if config.data.eval is not None:
        return replace(dataset, train=rest, sha256=digest(rest))
    train, held_out = split(rest, config.data.eval_fraction, config.data.split_seed)
    return replace(dataset, train=train, evaluation=held_out, sha256=digest(train))


def _trained(
    deck: Deck, config: RunConfig, folder: Path, dataset: Dataset[Any], *, resume: bool, progress: bool
) -> TrainingRun:
    if resume and is_finished(folder):
        deck.load_adapter(folder / "adapter", folder.name)
        return read_run(folder.name, folder)
    deck.add(folder.name, config.method, labels=dataset.labels, seed=config.training.seed)
    job = {folder.name: Job(dataset, config.training, config.refit_head)}
    found = run_jobs(deck, job, config.training, {folder.name: folder}, resume=resume, progress=progress)
    return found[folder.name]


def _measured(
    deck: Deck, name: str, dataset: Dataset[Any], test: Sequence[Example]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return an adapter's metrics on a fold, and a row for each of its texts."""
    task = cast(TrainableTask, deck.adapter(name).task)
    metrics = task.objective(deck, name, replace(dataset, train=test, evaluation=test)).evaluate()
    metrics.pop("temperature", None)
    answers = deck.predict([example.text for example in test], adapter=name)
    rows = [
        {
            "text": example.text,
            "label": _label(example.labels),
            "predicted": _label(answer.labels),
            "score": answer.score,
            "probabilities": dict(answer.probabilities),
        }
        for example, answer in zip(test, answers, strict=True)
    ]
    return metrics, rows


def _label(labels: Sequence[str]) -> str | list[str]:
    return labels[0] if len(labels) == 1 else list(labels)


def _shown(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
