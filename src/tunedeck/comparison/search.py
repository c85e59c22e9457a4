"""A search over learning rate and size before the comparison, its losers stopped early by successive halving."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunedeck.comparison.grammar import Candidate
from tunedeck.comparison.runs import Interrupted, Run
from tunedeck.comparison.spec import ComparisonSpec
from tunedeck.core.checks import require
from tunedeck.core.errors import ConfigError, TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.run_length import steps_per_epoch, total_steps
from tunedeck.core.values import to_values
from tunedeck.methods.registry import METHODS
from tunedeck.training.config import RunConfig, TrainingSettings, run_config, stored_values

if TYPE_CHECKING:
    import optuna

    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.base import Dataset

EVALUATIONS, FIRST_RUNG = 8, 2
"""First rung as a share of a whole trial; at it, and each time the evaluations have doubled, the worse half stops."""
HELD_OUT = 8
"""One in this many training examples is kept to judge trials by; the held-out examples are not touched."""
FILE = "search.jsonl"


def search(
    spec: ComparisonSpec, runs: Sequence[Run], deck: Deck, dataset: Dataset[Any], metric: str
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Return each entry with the best settings found, and every trial; a search that was interrupted is resumed.

    `runs` is one run for each entry. Raises ConfigError when optuna is missing or the folder holds a search of other
    settings.
    """
    require("--search", ["optuna"], "'tunedeck[search]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parts = _divided(dataset)
    chosen, trials = [], []
    for run in runs:
        if {"learning_rate", *_size(run)[1]} <= run.candidate.given:
            chosen.append(run.candidate)
            continue
        study = _study(run, metric, spec.folder, dataset.sha256)
        left = spec.trials - sum(trial.state.is_finished() for trial in study.trials)
        study.optimize(
            partial(_trial, spec=spec, run=run, deck=deck, parts=parts, metric=metric), n_trials=max(0, left)
        )
        completed = any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
        best = study.best_params if completed else {}
        name, count = run.candidate.name, len(study.trials)
        spec.tell(say("{name}: best of {count} trials: {settings}", name=name, count=count, settings=best))
        chosen.append(with_settings(run.candidate, best))
        trials += [_trial_values(name, trial) for trial in study.trials]
    return chosen, trials


def _study(run: Run, metric: str, folder: Path, data_sha256: str) -> optuna.Study:
    """Return the entry's study, begun with its settings, or as an interrupted search left it."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from tunedeck.tasks.registry import view_of

    study = optuna.create_study(
        study_name=run.candidate.folder,
        storage=JournalStorage(JournalFileBackend(str(folder / FILE))),
        load_if_exists=True,
        direction="minimize" if metric in view_of(run.config.task).lower_is_better else "maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=2),
    )
    _check_same(study, {"config": run.config.model_dump(mode="json"), "data": data_sha256})
    if not study.trials:
        study.enqueue_trial({**_size(run)[1], "learning_rate": _rate(run)})
    return study


def _trial_values(name: str, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    how = {"entry": name, "quality": trial.value, "state": trial.state.name.lower()}
    return {**how, "evaluations": len(trial.intermediate_values), "settings": trial.params}


def with_settings(candidate: Candidate, found: Mapping[str, Any]) -> Candidate:
    """Return the entry with what was found; settings that are proportional to the size keep their ratio to it."""
    method, training = dict(candidate.method), dict(candidate.training)
    config_type = METHODS[str(method["kind"])]
    space, defaults = config_type.search_space, to_values(config_type())
    for key, value in found.items():
        if key == "learning_rate":
            training[key] = value
            continue
        for other in space.proportional if space is not None else ():
            method[other] = method.get(other, defaults[other]) / method.get(key, defaults[key]) * value
        method[key] = value
    return replace(candidate, method=method, training=training)


def _trial(trial: optuna.Trial, spec: ComparisonSpec, run: Run, deck: Deck, parts: Dataset[Any], metric: str) -> float:
    """Train once on one part of the training examples; the metric on the other."""
    import optuna

    from tunedeck.training.jobs import Job, run_jobs

    found = _suggested(trial, run)
    config, settings = _trial_settings(with_settings(run.candidate, found), run, len(parts.train))
    seen: list[float] = []

    def should_stop(metrics: dict[str, float]) -> bool:
        seen.append(metrics[metric])
        trial.report(metrics[metric], len(seen))
        return trial.should_prune()

    deck.add("trial", config.method, labels=parts.labels, seed=settings.seed)
    try:
        jobs, folders = {"trial": Job(parts)}, {"trial": None}
        done = run_jobs(deck, jobs, settings, folders, resume=False, progress=False, should_stop=should_stop)["trial"]
    except TrainingError as error:
        raise optuna.TrialPruned from error  # the rate is so high that the loss is not a number
    finally:
        deck.remove("trial")
    if done.stopped in ("interrupted", "terminated"):
        raise Interrupted(signal.SIGTERM if done.stopped == "terminated" else signal.SIGINT)
    spec.tell(
        say(
            "  trial {number} of {name}: {settings}: {result}",
            number=trial.number,
            name=run.candidate.name,
            settings=found,
            result=say("stopped early") if done.stopped == "stopped" else f"{done.metrics[metric]:.3f}",
        )
    )
    if done.stopped == "stopped":
        raise optuna.TrialPruned
    return done.metrics[metric]


def _suggested(trial: optuna.Trial, run: Run) -> dict[str, Any]:
    """Return the settings of a trial, besides those that were named for the entry."""
    found: dict[str, Any] = {}
    if "learning_rate" not in run.candidate.given:
        found["learning_rate"] = trial.suggest_float("learning_rate", *_rates(run), log=True)
    choices, now = _size(run)
    return {**found, **{key: trial.suggest_categorical(key, choices) for key in now}}


def _trial_settings(candidate: Candidate, run: Run, examples: int) -> tuple[RunConfig, TrainingSettings]:
    config = RunConfig.model_validate({**run.config.model_dump(mode="json"), "method": candidate.method})
    loop = config.training
    per_epoch = steps_per_epoch(examples, loop.batch_size, loop.gradient_accumulation_steps)
    steps = loop.max_steps or total_steps(loop.epochs, per_epoch)
    changes = {"learning_rate": candidate.training.get("learning_rate"), "eval_steps": max(1, steps // EVALUATIONS)}
    return config, loop.model_copy(update=changes)


def _rate(run: Run) -> float:
    return run.config.training.learning_rate or run.config.method.learning_rate


def _rates(run: Run) -> tuple[float, float]:
    """Return the method's range of learning rates, shifted if the run sets a rate."""
    method = run.config.method
    low, high = method.learning_rates
    shift = _rate(run) / method.learning_rate
    return low * shift, high * shift


def _size(run: Run) -> tuple[list[Any], dict[str, Any]]:
    """Return the sizes to try, and {its key: what it is}; nothing where the method has none or the entry names it."""
    method = run.config.method
    space = method.search_space
    now = to_values(method)[space.setting] if space is not None else None
    if space is None or not isinstance(now, int | float) or space.setting in run.candidate.given:
        return [], {}
    return sorted({*space.values, int(now)}), {space.setting: int(now)}


def _divided(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the training examples in two: to train trials on, and to judge them by."""
    numbers = set(random.Random(0).sample(range(len(dataset.train)), max(1, len(dataset.train) // HELD_OUT)))
    train = [one for number, one in enumerate(dataset.train) if number not in numbers]
    return replace(dataset, train=train, evaluation=[dataset.train[number] for number in sorted(numbers)])


def _check_same(study: optuna.Study, what: Mapping[str, Any]) -> None:
    before = study.user_attrs.get("what")
    if before is not None:
        before = {**before, "config": run_config(stored_values(before["config"])).model_dump(mode="json")}
    if before is not None and before != what:
        raise ConfigError(
            say(
                "the search in this folder was made with other settings or data; choose another --out, or "
                "start over with --overwrite"
            )
        )
    study.set_user_attr("what", dict(what))
