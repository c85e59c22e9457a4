"""From adapters and their data to run folders: one job, or several that share each pass through the base."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast, final

from accelerate.utils import broadcast, broadcast_object_list

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.core.measurement import PeakMemory
from tunedeck.core.native import give_back_freed_memory
from tunedeck.core.process import process_rank
from tunedeck.data.batches import balancing_weights
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.base import patched
from tunedeck.deck.patches.checkpointing import Checkpointing
from tunedeck.deck.patches.training_attention import training_attention
from tunedeck.deck.task import Task, has_labels, labels_of
from tunedeck.tasks.base import Dataset, TrainableTask
from tunedeck.tasks.registry import view_of
from tunedeck.training.centroids import training_centroids
from tunedeck.training.checkpoint import Checkpoints
from tunedeck.training.config import TrainingSettings
from tunedeck.training.distributed import is_sharded, joined, shard_base
from tunedeck.training.events import EventLog, tracked
from tunedeck.training.lock import locked
from tunedeck.training.loop import train_to_end
from tunedeck.training.progress import Progress, ProgressRow
from tunedeck.training.record import TrainingRun, draw, measured, read_run, record
from tunedeck.training.resume import EVENTS, identity, is_finished, resume_point
from tunedeck.training.signals import StopSignals
from tunedeck.training.state import COMPLETE
from tunedeck.training.trainer import AdapterTrainer, ShouldStop, Start

Data: TypeAlias = str | DataSettings | Dataset[Any]
"""A file, a hub id, a `bundled:` name, settings that say more, or a Dataset read by the task."""


@final
@dataclass(frozen=True, slots=True)
class Job:
    """Hold the data and settings of one of several adapters; `settings` None means the shared ones.

    With `refit_head`, a run that comes to its end fits its head again, to the held-out examples as well.
    """

    data: Data
    settings: TrainingSettings | None = None
    refit_head: bool = False


def run_jobs(
    deck: Deck,
    jobs: Mapping[str, Job],
    settings: TrainingSettings,
    folders: Mapping[str, Path | None],
    *,
    resume: bool,
    progress: bool,
    should_stop: ShouldStop = lambda metrics: False,
    begin: Callable[[], None] = lambda: None,
) -> dict[str, TrainingRun]:
    """Train the adapters of these names together; each as it would have been alone. See `train`.

    `begin` is called when the run folders are this process's, before anything in them changes.
    """
    runs: dict[str, TrainingRun] = {}
    trainers: list[AdapterTrainer] = []
    datasets: dict[str, Dataset[Any]] = {}
    with ExitStack() as stack:
        memory = stack.enter_context(PeakMemory())
        bar = stack.enter_context(Progress(deck.model.device, progress))
        done = {name for name, folder in folders.items() if len(jobs) > 1 and resume and folder and is_finished(folder)}
        if process_rank() == 0:
            for name, folder in folders.items():
                if folder is not None and name not in done:
                    stack.enter_context(locked(folder))
            begin()
        for name, job in jobs.items():
            folder = folders[name]
            if folder is not None and name in done:
                deck.remove(name)
                deck.load_adapter(folder / "adapter", name)
                runs[name] = read_run(name, folder)
                continue
            own = job.settings or settings
            datasets[name], task = _prepared(deck, name, job.data, own.seed)
            if job.refit_head and view_of(deck.adapter(name).task).head_start is None:
                raise ConfigError(say("refit_head is for tasks with a head; leave it out"))
            row = bar.row(name if len(jobs) > 1 else "", task.progress_metrics)
            trainers.append(make_trainer(deck, name, datasets[name], own, folder, resume, row, should_stop, stack))
        if trainers:
            stack.enter_context(patched(deck.base, _checkpointing(deck, trainers), training_attention(deck.base)))
        if len(trainers) == 1 and trainers[0].checkpoints is not None:
            stack.enter_context(trainers[0].checkpoints.named_in_errors())
        signals = stack.enter_context(StopSignals())  # until everything is written
        for trainer in train_to_end(trainers, signals):
            name = trainer.adapter.name
            if jobs[name].refit_head and trainer.state.stopped in COMPLETE:
                _refit(deck, name, datasets[name])
            runs[name] = finish_run(deck, datasets[name], trainer, folders[name], memory.peak_bytes)
    return {name: runs[name] for name in jobs}


def make_trainer(
    deck: Deck,
    name: str,
    dataset: Dataset[Any],
    settings: TrainingSettings,
    folder: Path | None,
    resume: bool,
    row: ProgressRow,
    should_stop: ShouldStop,
    stack: ExitStack,
    evaluates: bool = True,
) -> AdapterTrainer:
    """Return a trainer, ready to begin or to resume; its log and trackers are closed with the stack.

    Unless it `evaluates`, the held-out examples are left to the caller.
    """
    accelerator = joined(deck.model.device)
    if is_sharded(accelerator):
        shard_base(deck, name, accelerator)
    checkpoints, saved, events = None, None, None
    if folder is not None:
        events = folder / EVENTS if accelerator.is_main_process else None
        run = identity(deck, name, dataset, settings, accelerator.num_processes)
        checkpoints = Checkpoints(folder / "checkpoints", settings.keep_checkpoints, run)
        saved = resume_point(folder, checkpoints, resume, accelerator)
    trackers = settings.trackers if accelerator.is_main_process else ()
    listener = stack.enter_context(tracked(trackers, folder, settings.model_dump()))
    log = stack.enter_context(EventLog(events, saved.state["events"] if saved else None, listener))
    adapter = deck.adapter(name)
    task = _trainable(adapter.task)
    objective = task.objective(deck, name, dataset)
    metric = settings.metric_for_best_model or dataset.metric_for_best_model or task.metric_for_best_model
    looked_at = dataset if evaluates else replace(dataset, evaluation=())
    start = _start(deck, name, looked_at, settings) if saved is None else None
    held_out_ratio = len(looked_at.evaluation) / len(dataset.train)
    return AdapterTrainer(
        adapter,
        objective,
        settings,
        metric,
        held_out_ratio,
        log,
        accelerator,
        row,
        checkpoints,
        saved,
        should_stop,
        start,
        _sampling_weights(dataset, settings),
    )


def _sampling_weights(dataset: Dataset[Any], settings: TrainingSettings) -> list[float] | None:
    """Return the weights of `training.sampler`; ConfigError for examples without labels."""
    if settings.sampler is None:
        return None
    if not all(isinstance(example, Example) for example in dataset.train):
        raise ConfigError(say("training.sampler: balanced needs labelled texts; leave it out for this task"))
    return balancing_weights([example.labels for example in dataset.train])


def _start(deck: Deck, name: str, dataset: Dataset[Any], settings: TrainingSettings) -> Start | None:
    """Fit the head to the frozen base where the task has such a start and the settings want it; alike in all
    processes.
    """
    head_start = view_of(deck.adapter(name).task).head_start
    if head_start is None or settings.head_init != "probe":
        return None
    began = time.perf_counter()
    started = head_start(deck, name, dataset)
    give_back_freed_memory()  # of its batches: the heap keeps it, and the steps need other sizes
    broadcast(list(deck.adapter(name).head_tensors().values()))
    return Start(broadcast_object_list([started])[0], time.perf_counter() - began)


def _refit(deck: Deck, name: str, dataset: Dataset[Any]) -> None:
    """Fit the head to what the trained adapter reads of all examples; alike in all processes."""
    head_start = view_of(deck.adapter(name).task).head_start
    assert head_start is not None
    head_start(deck, name, replace(dataset, train=[*dataset.train, *dataset.evaluation], evaluation=()), fresh=False)
    broadcast(list(deck.adapter(name).head_tensors().values()))


def _checkpointing(deck: Deck, trainers: Sequence[AdapterTrainer]) -> Checkpointing:
    """Return the patch that computes the inside of layers again where the settings ask for it; ConfigError where the
    jobs differ in that.
    """
    wanted = trainers[0].settings.gradient_checkpointing
    if any(trainer.settings.gradient_checkpointing is not wanted for trainer in trainers):
        raise ConfigError(
            say("the jobs of a run share {key}; set it once, outside jobs", key="training.gradient_checkpointing")
        )
    adapter = next((trainer.adapter for trainer in trainers if trainer.adapter.built.weights), trainers[0].adapter)
    return Checkpointing(deck.router, adapter, wanted)


def finish_run(
    deck: Deck, dataset: Dataset[Any], trainer: AdapterTrainer, folder: Path | None, peak_bytes: int
) -> TrainingRun:
    """Write what the run folder ends with; the checkpoints of a run that came to its end go."""
    state, name = trainer.state, trainer.adapter.name
    texts = trainer.objective.texts_per_example
    measurement = measured(deck, name, trainer.settings, state, peak_bytes, texts, dataset)
    run = TrainingRun(
        name, state.metrics, measurement, state.stopped, state.best_step, folder, state.start, state.head_only
    )
    if trainer.accelerator.is_main_process:
        sharded = is_sharded(trainer.accelerator)  # one process alone cannot run the base then
        record(deck, dataset, run, None if sharded else training_centroids(deck, name, dataset))
        if folder is not None:
            draw(folder, name, _trainable(trainer.adapter.task).progress_metrics)
        if trainer.checkpoints and run.stopped in COMPLETE:
            trainer.checkpoints.clear()
    return run


def _prepared(deck: Deck, adapter: str, data: Data, seed: int) -> tuple[Dataset[Any], TrainableTask]:
    """Return the data, read, and the adapter's task, with the data's labels where it had none; DataError when the
    labels differ.
    """
    task = _trainable(deck.adapter(adapter).task)
    if isinstance(data, str):
        data = DataSettings(train=data)
    dataset = task.read(data) if isinstance(data, DataSettings) else data
    if has_labels(task) and labels_of(task) is None:
        deck.set_labels(adapter, dataset.labels or (), seed=seed)
        task = _trainable(deck.adapter(adapter).task)
    labels = labels_of(task)
    if labels != dataset.labels:
        raise DataError(say("the data has the labels {theirs}, the adapter {ours}", theirs=dataset.labels, ours=labels))
    if dataset.task_values:
        task = dataclasses.replace(cast(Any, task), **dataset.task_values)
        deck.set_task(adapter, task)
    return dataset, task


def _trainable(task: Task) -> TrainableTask:
    return cast(TrainableTask, task)
