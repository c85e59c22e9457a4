"""One training run, or several together, from settings to a run folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

from tunedeck.core.console import tell
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.process import process_rank
from tunedeck.deck.deck import Deck
from tunedeck.deck.reading import check_trains
from tunedeck.deck.task import with_labels
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.registry import task_of, view_of
from tunedeck.training.config import RunConfig, TrainingSettings, override, read_run_file
from tunedeck.training.continued import continue_run
from tunedeck.training.events import check_trackers
from tunedeck.training.folds import cross_validate, fold_folders
from tunedeck.training.job_file import run_configs
from tunedeck.training.jobs import Data, Job, run_jobs
from tunedeck.training.language import language_note
from tunedeck.training.left_out import with_left_out
from tunedeck.training.record import TrainingRun
from tunedeck.training.resume import EVENTS, check_unfinished, keep_config
from tunedeck.training.start_from import with_adapter
from tunedeck.training.trainer import ShouldStop

FEW_EXAMPLES = 100
"""With fewer the head gains by the held-out ones; this was measured up to 96 tweets (docs/guides/training.md)."""


@overload
def train(
    deck: Deck,
    adapter: str,
    data: Data,
    *,
    epochs: float | None = None,
    settings: TrainingSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    should_stop: ShouldStop = ...,
) -> TrainingRun: ...


@overload
def train(
    deck: Deck,
    adapter: Mapping[str, Data | Job],
    *,
    epochs: float | None = None,
    settings: TrainingSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    should_stop: ShouldStop = ...,
) -> dict[str, TrainingRun]: ...


def train(
    deck: Deck,
    adapter: str | Mapping[str, Data | Job],
    data: Data | None = None,
    *,
    epochs: float | None = None,
    settings: TrainingSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    should_stop: ShouldStop = lambda metrics: False,
) -> TrainingRun | dict[str, TrainingRun]:
    """Train a deck's adapter on data and leave it in the deck at its best state.

    `data` is a file, a hub id, a `bundled:` name, settings that say more, or a Dataset read by the task. With `out`, a
    run folder is written: events.jsonl and checkpoints/ as it goes, then metrics.json, measurement.json, loss.png,
    loss.svg and adapter/. Ctrl-C and SIGTERM write a checkpoint, end the run early, keep the best state and warn;
    `stopped` of the result says so. `resume` continues from the newest checkpoint in `out`, from the start where
    there is none, to the very end that the run would have had. `should_stop` sees the metrics of every evaluation and
    may end the run there.

    Several adapters, `{name: data}` or `{name: Job(data, settings)}`, are trained together: their batches share each
    pass through the base, and each ends as it would have alone. Their run folders are `out`/name.

    Raises DataError for data that is not usable, TrainingError when the loss is no longer a number, memory does not
    suffice or the run in `out` is another one or finished, StorageError when the disk refuses.
    """
    settings = settings or TrainingSettings()
    if epochs is not None:
        settings = settings.model_copy(update={"epochs": epochs})
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise ConfigError(say("resume needs out, the folder of the run to resume"))
    jobs: dict[str, Job]
    if isinstance(adapter, str):
        if data is None:
            raise ConfigError(say("adapter {name!r} has no data to train on", name=adapter))
        jobs, folders = {adapter: Job(data)}, {adapter: folder}
    else:
        if not adapter:
            raise ConfigError(say("there is no adapter to train"))
        jobs = {name: job if isinstance(job, Job) else Job(job) for name, job in adapter.items()}
        folders = {name: None if folder is None else folder / name for name in jobs}
    runs = run_jobs(deck, jobs, settings, folders, resume=resume, progress=progress, should_stop=should_stop)
    _warn_if_stopped(runs, None if folder is None else f"td.train(..., out={str(folder)!r}, resume=True)")
    return runs[adapter] if isinstance(adapter, str) else runs


def _warn_if_stopped(runs: Mapping[str, TrainingRun], resume: str | None) -> None:
    """Warn a program, to which training returns as if nothing had happened, of the signal that stopped it."""
    stopped = next((run for run in runs.values() if run.stopped in ("interrupted", "terminated")), None)
    if stopped is None or process_rank() != 0:
        return
    text = say(
        "training was stopped by {signal} after step {step}",
        signal="Ctrl-C" if stopped.stopped == "interrupted" else "SIGTERM",
        step=stopped.measurement.steps,
    )
    if resume is None:
        text += say("; without out there is no checkpoint to resume from")
    else:
        text += say("; resume with {call}", call=resume)
    warnings.warn(text, stacklevel=3)


def train_run(
    run: str | Path | Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, TrainingRun]:
    """Train as `tunedeck train run.yaml` does: read the data, load the base, train, write the run folder.

    `run` is a run file, a data file or a run's values; `changes` sets keys by their dotted names, such as
    `{"training.epochs": 1}`. Where no model is named, a bundled one that reads the language of the data is taken. The
    run folder is `out`, by default the run's `out`, else one in runs/ after the method and the time. `resume`
    continues the run that is in it, `overwrite` replaces it. `progress` prints notes and progress bars to standard
    error. Returns the runs by adapter, one for each job of the file; after Ctrl-C or SIGTERM, `stopped` says so.

    Raises ConfigError for settings that do not fit and where the folder holds an earlier run, and what `train` raises.
    """
    values = dict(run) if isinstance(run, Mapping) else read_run_file(Path(run))
    main = process_rank() == 0
    tell_user = tell if main and progress else lambda text: None
    values = override(values, {**(changes or {}), "out": None if out is None else str(out)})
    configs = run_configs(with_left_out(with_adapter(values), tell_user))
    first = configs[0]
    folder = Path(first.out or Path("runs") / f"{first.method.kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    folders = [folder / str(one.name) for one in configs] if len(configs) > 1 else [folder]
    if len(configs) > 1 and any(one.folds or one.start_from for one in configs):
        raise ConfigError(say("folds and start_from do not go with jobs; train one job at a time"))
    if first.folds and first.start_from:
        raise ConfigError(say("folds begin with fresh adapters; leave out --from"))
    if first.folds:
        folders = fold_folders(folder, first.folds)
    if any(one.refit_head and (one.start_from or one.data.eval) for one in configs):
        raise ConfigError(
            say("refit_head learns from the examples that a run holds out; it does not go with --from or --eval-data")
        )
    if main and not overwrite and not resume and any((one / EVENTS).exists() for one in folders):
        raise ConfigError(
            say("{path} holds an earlier run; choose another --out, --overwrite it, or --resume it", path=folder)
        )
    if first.folds:
        runs = cross_validate(first, folder, tell_user, resume=resume, progress=main and progress)
    elif first.start_from is not None:
        runs = continue_run(first, folder, tell_user, resume=resume, progress=main and progress)
    else:
        runs = run_together(configs, folder, tell_user, resume=resume, progress=main and progress)
    _warn_if_stopped(runs, f"tunedeck train --resume {folder}")
    return runs


def run_together(
    configs: Sequence[RunConfig], out: Path, tell: Callable[[str], None], resume: bool = False, progress: bool = True
) -> dict[str, TrainingRun]:
    """Carry out a run file: read the data, load the base, add the adapters, train them, write the run folder.

    Several `configs` share model and task; their adapters are trained together. `resume` continues the run in `out`.
    `tell` is given what a person wants to know before training starts. Returns the runs by adapter.
    """
    first, several = configs[0], len(configs) > 1
    for config in configs:
        check_trackers(config.training.trackers)
    if resume and not several:
        check_unfinished(out)
    task = task_of(first.task)
    for config in configs:
        check_trains(config.method, task)
    datasets = [task.read(config.data) for config in configs]
    labels = None if several else datasets[0].labels
    deck = Deck.load(
        first.model,
        task if labels is None else with_labels(task, labels),
        dtype=first.dtype,
        device=first.device,
        trust_remote_code=first.trust_remote_code,
        quantize=first.quantize,
    )
    jobs: dict[str, Job] = {}
    for config, dataset in zip(configs, datasets, strict=True):
        name = config.name or out.resolve().name
        deck.add(name, config.method, labels=dataset.labels, seed=config.training.seed)
        jobs[name] = Job(dataset, config.training, config.refit_head)
        for text in (*dataset.notes, dataset.description):
            tell(text)
        tell(_described(deck, name))
        for note in (language_note(deck, dataset.train), _refit_note(config, dataset)):
            if note is not None:
                tell(note)
    if first.quantize is not None:
        tell(_quantized_parts(deck))

    values = [config.model_dump(mode="json", exclude={"out"} if several else None) for config in configs]
    begin = partial(keep_config, out, {"jobs": values} if several else values[0], resume)
    folders = {name: out / name if several else out for name in jobs}
    return run_jobs(deck, jobs, first.training, folders, resume=resume, progress=progress, begin=begin)


def _refit_note(config: RunConfig, dataset: Dataset[Any]) -> str | None:
    """Suggest to refit the head where the examples are few and some of them are held out, else None."""
    few = 0 < len(dataset.evaluation) < len(dataset.train) < FEW_EXAMPLES and not config.data.eval
    if config.refit_head or not few or view_of(task_of(config.task)).head_start is None:
        return None
    return say(
        "few examples: with --refit-head the head learns from the {held_out} held-out ones as well, at the end",
        held_out=len(dataset.evaluation),
    )


def _described(deck: Deck, name: str) -> str:
    """Describe the number of trained parameters."""
    summary = deck.summary(name)
    dtype = str(deck.base.dtype).removeprefix("torch.")
    if not summary.head_parameters:
        return say(
            "{kind} on {model} in {dtype}: {trainable:,} parameters train; {share:.2%} of the base's {total:,}",
            kind=summary.kind,
            model=deck.base.reference,
            dtype=dtype,
            trainable=summary.trainable_parameters,
            share=summary.trainable_share,
            total=summary.base_parameters,
        )
    return say(
        "{kind} on {model} in {dtype}: {trainable:,} parameters train, the head's {head:,} included; "
        "{share:.2%} of the base's {total:,}",
        kind="head" if summary.trainable_parameters == summary.head_parameters else summary.kind,
        model=deck.base.reference,
        dtype=dtype,
        trainable=summary.trainable_parameters,
        head=summary.head_parameters,
        share=summary.trainable_share,
        total=summary.base_parameters,
    )


def _quantized_parts(deck: Deck) -> str:
    """Describe the memory of a quantized base by part."""
    parts = {part.name: part for part in deck.base_parts()}
    return say(
        "the base in {scheme} takes {total:.1f} MB ({whole:.1f} in 16 bits): linear layers "
        "{linears:.1f} MB ({plain:.1f} in 16 bits), embeddings {embeddings:.1f} MB, head {head:.1f} "
        "MB, other {other:.1f} MB",
        scheme=deck.base.quantize,
        total=sum(part.bytes for part in parts.values()) / 1e6,
        whole=sum(part.parameters for part in parts.values()) * 2 / 1e6,
        linears=parts["linears"].bytes / 1e6,
        plain=parts["linears"].parameters * 2 / 1e6,
        embeddings=parts["embeddings"].bytes / 1e6,
        head=parts["head"].bytes / 1e6,
        other=parts["other"].bytes / 1e6,
    )
