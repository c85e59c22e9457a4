"""One training run from settings to a run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import yaml
from accelerate import Accelerator

from tunedeck.core.errors import ConfigError, DataError, TrainingError
from tunedeck.core.measurement import PeakMemory
from tunedeck.core.messages import say
from tunedeck.core.process import process_rank
from tunedeck.core.storage import write_text
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task
from tunedeck.tasks.base import Dataset, TrainableTask
from tunedeck.tasks.registry import task_of
from tunedeck.training.checkpoint import Checkpoints
from tunedeck.training.config import RunConfig, TrainingSettings
from tunedeck.training.distributed import is_sharded, shard_base
from tunedeck.training.events import EventLog
from tunedeck.training.figure import draw
from tunedeck.training.loop import Loop
from tunedeck.training.progress import Progress
from tunedeck.training.record import TrainingRun, measured, record
from tunedeck.training.resume import CONFIG, ENDED, EVENTS, check_unfinished, identity, opened
from tunedeck.training.trackers import check_trackers, tracked


def train(
    deck: Deck,
    adapter: str,
    data: str | DataSettings | Dataset[Any],
    *,
    epochs: float | None = None,
    settings: TrainingSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingRun:
    """Train a deck's adapter on labelled data and leave it in the deck at its best state.

    `data` is a file, a hub id, a `bundled:` name, settings that say more, or a Dataset read by the task. With `out`, a run folder is written:
    events.jsonl and checkpoints/ as it goes, then metrics.json, measurement.json, loss.png, loss.svg and adapter/. Ctrl-C and SIGTERM write a checkpoint,
    end the run early and keep the best state; `resume` goes on from the newest checkpoint in `out`, from the start where there is none, to the
    very end that the run would have had. Raises DataError for data that is not usable, TrainingError when the loss is no longer a number, memory
    does not suffice or the run in `out` is another one or finished, StorageError when the disk refuses.
    """
    settings = settings or TrainingSettings()
    if epochs is not None:
        settings = settings.model_copy(update={"epochs": epochs})
    dataset, task = _prepared(deck, adapter, data, settings.seed)
    accelerator = Accelerator(cpu=deck.model.device.type == "cpu")
    if is_sharded(accelerator):
        shard_base(deck, adapter, accelerator)
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise ConfigError(say("resume needs out, the folder of the run to go on with"))
    checkpoints, saved, events = None, None, None
    if folder is not None:
        events = folder / EVENTS if accelerator.is_main_process else None
        run = identity(deck, adapter, dataset, settings, accelerator.num_processes)
        checkpoints = Checkpoints(folder / "checkpoints", settings.keep_checkpoints, run)
        saved = opened(folder, checkpoints, resume, accelerator)
    trackers = settings.trackers if accelerator.is_main_process else ()
    with (
        tracked(trackers, folder, settings.model_dump()) as listener,
        EventLog(events, saved.state["events"] if saved else None, listener) as log,
        PeakMemory() as memory,
        Progress(adapter, task.headline, deck.model.device, progress) as shown,
    ):
        course = task.course(deck, adapter, dataset)
        best_by = settings.best_by or dataset.best_by or task.best_by
        loop = Loop(deck.adapter(adapter), course, settings, best_by, log, accelerator, checkpoints)
        try:
            with checkpoints.named_in_errors() if checkpoints else nullcontext():
                loop.run(shown, saved)
        except TrainingError:
            if loop.outcome.metrics:
                _finish(deck, adapter, dataset, loop, folder, memory.peak_bytes)
            raise
    return _finish(deck, adapter, dataset, loop, folder, memory.peak_bytes)


def _finish(
    deck: Deck, adapter: str, dataset: Dataset[Any], loop: Loop, folder: Path | None, peak_bytes: int
) -> TrainingRun:
    """Write what the run folder ends with; the checkpoints of a run that came to its end go."""
    outcome = loop.outcome
    measurement = measured(deck, adapter, loop.settings, outcome, peak_bytes)
    run = TrainingRun(adapter, outcome.metrics, measurement, outcome.stopped, outcome.best_step, folder)
    if loop.accelerator.is_main_process:
        record(deck, dataset, run)
        if folder is not None:
            draw(folder, adapter, _trainable(deck.adapter(adapter).task).headline)
        if loop.checkpoints and run.stopped in ENDED:
            loop.checkpoints.clear()
    return run


def _prepared(
    deck: Deck, adapter: str, data: str | DataSettings | Dataset[Any], seed: int
) -> tuple[Dataset[Any], TrainableTask]:
    """The data, read, and the adapter's task, with the data's labels where it had none; DataError when the labels differ."""
    task = _trainable(deck.adapter(adapter).task)
    if isinstance(data, str):
        data = DataSettings(train=data)
    dataset = task.read(data) if isinstance(data, DataSettings) else data
    if task.has_head and task.labels is None:
        deck.set_labels(adapter, dataset.labels or (), seed=seed)
        task = _trainable(deck.adapter(adapter).task)
    if task.labels != dataset.labels:
        raise DataError(
            say("the data has the labels {theirs}, the adapter {ours}", theirs=dataset.labels, ours=task.labels)
        )
    return dataset, task


def run_training(
    config: RunConfig, out: Path, tell: Callable[[str], None], resume: bool = False, progress: bool = True
) -> TrainingRun:
    """Carry out a run file: read the data, load the base, add the adapter, train it, write the run folder.

    `resume` goes on with the run in `out`. `tell` is given what a person wants to know before training starts.
    """
    check_trackers(config.training.trackers)
    if resume:
        check_unfinished(out)
    task = task_of(config.task)
    dataset = task.read(config.data)
    if dataset.labels is not None:
        task = _trainable(task.with_labels(dataset.labels))
    deck = Deck.load(
        config.model,
        task,
        dtype=config.dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )
    name = config.name or out.resolve().name
    deck.add(name, config.method_config(), seed=config.training.seed)
    summary = deck.summary(name)
    tell(dataset.description)
    tell(
        say(
            "{kind} on {model} in {dtype}: {trainable:,} parameters train, the head's {head:,} included; {share:.2%} of the base's {total:,}",
            kind=summary.kind,
            model=config.model,
            dtype=str(deck.base.dtype).removeprefix("torch."),
            trainable=summary.trainable_parameters,
            total=summary.base_parameters,
            share=summary.trainable_share,
            head=summary.head_parameters,
        )
    )
    if config.quantize is not None:
        tell(_packed(deck))
    if not resume and process_rank() == 0:
        out.mkdir(parents=True, exist_ok=True)
        values = config.model_dump(mode="json")
        write_text(out / CONFIG, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return train(deck, name, dataset, settings=config.training, out=out, resume=resume, progress=progress)


def _packed(deck: Deck) -> str:
    """What a quantised base takes, part by part."""
    parts = {part.name: part for part in deck.base_parts()}
    return say(
        "the base in {scheme} takes {total:.1f} MB ({whole:.1f} in 16 bits): linears {linears:.1f} MB ({plain:.1f} in 16 bits), "
        "embeddings {embeddings:.1f} MB, head {head:.1f} MB, other {other:.1f} MB",
        scheme=deck.base.quantize,
        total=sum(part.bytes for part in parts.values()) / 1e6,
        whole=sum(part.parameters for part in parts.values()) * 2 / 1e6,
        linears=parts["linears"].bytes / 1e6,
        plain=parts["linears"].parameters * 2 / 1e6,
        embeddings=parts["embeddings"].bytes / 1e6,
        head=parts["head"].bytes / 1e6,
        other=parts["other"].bytes / 1e6,
    )


def _trainable(task: Task) -> TrainableTask:
    return cast(TrainableTask, task)
