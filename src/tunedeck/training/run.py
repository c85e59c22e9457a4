"""One training run from settings to a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from tunedeck.core.errors import DataError
from tunedeck.core.measurement import Measurement, PeakMemory, this_machine
from tunedeck.core.messages import say
from tunedeck.core.storage import write_json, write_text
from tunedeck.data.settings import DataSettings
from tunedeck.deck.checkpointing import checkpointed
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task
from tunedeck.formats.folder import adapter_bytes
from tunedeck.formats.manifest import DataRecord
from tunedeck.tasks.base import Dataset, TrainableTask
from tunedeck.tasks.registry import task_of
from tunedeck.training.config import RunConfig, TrainingSettings
from tunedeck.training.events import EventLog
from tunedeck.training.loop import GiveUp, Loop, Outcome
from tunedeck.training.progress import Progress


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a run achieved and where it lies."""

    adapter: str
    metrics: dict[str, float]
    measurement: Measurement
    stopped: str
    """"finished", "early" when patience ran out, "time" when max_minutes were over, "given up" by
    `give_up`, or "interrupted" by Ctrl-C."""
    best_step: int
    folder: Path | None
    """The run folder; None when `out` was not given."""

    @property
    def adapter_folder(self) -> Path | None:
        """The saved adapter inside the run folder."""
        return self.folder / "adapter" if self.folder else None

    def to_json(self) -> dict[str, Any]:
        """Metrics by name, times in seconds and paths, as plain JSON values."""
        return {
            "adapter": self.adapter,
            **self.metrics,
            "train_s": self.measurement.train_s,
            "eval_s": self.measurement.eval_s,
            "examples_per_s": self.measurement.examples_per_s,
            "peak_memory_bytes": self.measurement.peak_memory_bytes,
            "steps": self.measurement.steps,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "run": None if self.folder is None else str(self.folder),
            "adapter_folder": None if self.adapter_folder is None else str(self.adapter_folder),
            "adapter_bytes": None if self.adapter_folder is None else adapter_bytes(self.adapter_folder),
        }


def train(
    deck: Deck,
    adapter: str,
    data: str | DataSettings | Dataset[Any],
    *,
    epochs: float | None = None,
    settings: TrainingSettings | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    give_up: GiveUp = lambda metrics: False,
) -> TrainingRun:
    """Train a deck's adapter on labelled data and leave it in the deck at its best state.

    `data` is a file, a hub id, a `bundled:` name, or settings that say more. With `out`, a run folder is written:
    events.jsonl as it goes, then metrics.json, measurement.json and adapter/. Ctrl-C ends the run early and keeps the best state.
    `data` may also be a Dataset read by the task; `give_up` sees the metrics of every evaluation and may end the run there. Raises DataError for data that is not usable, TrainingError when the loss is no longer a number.
    """
    settings = settings or TrainingSettings()
    if epochs is not None:
        settings = settings.model_copy(update={"epochs": epochs})
    task = _trainable(deck.adapter(adapter).task)
    if isinstance(data, str):
        data = DataSettings(train=data)
    dataset = task.read(data) if isinstance(data, DataSettings) else data
    if task.has_head and task.labels is None:
        deck.set_labels(adapter, dataset.labels or (), seed=settings.seed)
        task = _trainable(deck.adapter(adapter).task)
    if task.labels != dataset.labels:
        raise DataError(
            say("the data has the labels {theirs}, the adapter {ours}", theirs=dataset.labels, ours=task.labels)
        )
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        EventLog(folder / "events.jsonl" if folder else None) as log,
        PeakMemory() as memory,
        Progress(adapter, settings.batch_size * settings.accumulation, task.headline, progress) as shown,
        checkpointed(deck.base, deck.router, deck.adapter(adapter), settings.checkpointing),
    ):
        course = task.course(deck, adapter, dataset)
        best_by = settings.best_by or dataset.best_by or task.best_by
        loop = Loop(deck.adapter(adapter), course, settings, best_by, log, give_up)
        outcome = loop.run(shown)
    measurement = _measurement(deck, adapter, settings, outcome, memory.peak_bytes)
    run = TrainingRun(adapter, outcome.metrics, measurement, outcome.stopped, outcome.best_step, folder)
    _record(deck, dataset, run)
    return run


def run_training(config: RunConfig, out: Path, tell: Callable[[str], None], progress: bool = True) -> TrainingRun:
    """Carry out a run file: read the data, load the base, add the adapter, train it, write the run folder.

    `tell` is given what a person wants to know before training starts.
    """
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
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    return train(deck, name, dataset, settings=config.training, out=out, progress=progress)


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


def _measurement(
    deck: Deck, adapter: str, settings: TrainingSettings, outcome: Outcome, peak_bytes: int
) -> Measurement:
    machine = this_machine()
    device = next(deck.model.parameters()).device
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine = replace(machine, gpu=properties.name, gpu_memory_bytes=properties.total_memory)
        peak_bytes = torch.cuda.max_memory_allocated(device)
    return Measurement(
        machine=machine,
        device=str(device),
        dtype=str(deck.base.dtype).removeprefix("torch."),
        model=deck.base.reference,
        method=deck.adapter(adapter).config.kind,
        batch_size=settings.batch_size * settings.accumulation,
        steps=outcome.steps,
        train_s=outcome.train_s,
        eval_s=outcome.eval_s,
        step_s=outcome.step_s,
        examples_per_s=outcome.examples / outcome.train_s if outcome.steps else 0.0,
        tokens_per_s=outcome.tokens / outcome.train_s if outcome.steps else 0.0,
        padded_share=1 - outcome.tokens / outcome.positions if outcome.positions else 0.0,
        peak_memory_bytes=peak_bytes,
        largest_batch_positions=outcome.largest_batch_positions,
        quantize=deck.base.quantize,
    )


def _record(deck: Deck, dataset: Dataset[Any], run: TrainingRun) -> None:
    """Keep metrics, data and measurement with the adapter, and write what the run folder ends with."""
    adapter = deck.adapter(run.adapter)
    adapter.manifest = adapter.manifest.model_copy(
        update={
            "metrics": run.metrics,
            "data": DataRecord(source=dataset.source, sha256=dataset.sha256, examples=len(dataset.train)),
            "measurement": run.measurement.to_json(),
        }
    )
    if run.folder is not None and run.adapter_folder is not None:
        deck.save(run.adapter, run.adapter_folder)
        write_json(run.folder / "measurement.json", run.measurement.to_json())
        write_json(run.folder / "metrics.json", {"stopped": run.stopped, "best_step": run.best_step, **run.metrics})
