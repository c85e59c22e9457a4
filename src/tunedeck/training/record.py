"""What a run leaves behind: its measurement, its metrics and its adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Machine, Measurement, this_machine
from tunedeck.core.storage import write_json
from tunedeck.deck.deck import Deck
from tunedeck.formats.folder import adapter_bytes
from tunedeck.formats.manifest import DataRecord
from tunedeck.tasks.base import Dataset
from tunedeck.training.config import TrainingSettings
from tunedeck.training.outcome import Outcome
from tunedeck.training.resume import METRICS

MEASUREMENT = "measurement.json"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a run achieved and where it lies."""

    adapter: str
    metrics: dict[str, float]
    measurement: Measurement
    stopped: str
    """"finished", "early" when patience ran out, "time" when max_minutes were over, "given up" by `give_up`,
    "interrupted" by Ctrl-C, "terminated" by SIGTERM or "failed"."""
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


def measured(
    deck: Deck, adapter: str, settings: TrainingSettings, outcome: Outcome, peak_bytes: int, texts_per_example: float
) -> Measurement:
    """The run in numbers; `peak_bytes` is the process's."""
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
        batch_size=settings.batch_size * settings.gradient_accumulation_steps,
        steps=outcome.steps,
        train_s=outcome.train_s,
        eval_s=outcome.eval_s,
        step_s=outcome.step_s,
        examples_per_s=outcome.examples / outcome.train_s if outcome.steps else 0.0,
        tokens_per_s=outcome.tokens / outcome.train_s if outcome.steps else 0.0,
        padded_share=1 - outcome.tokens / outcome.positions if outcome.positions else 0.0,
        peak_memory_bytes=peak_bytes,
        largest_batch_positions=outcome.largest_batch_positions,
        texts_per_example=texts_per_example,
        quantize=deck.base.quantize,
    )


def record(deck: Deck, dataset: Dataset[Any], run: TrainingRun) -> None:
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
        write_json(run.folder / MEASUREMENT, run.measurement.to_json())
        write_json(run.folder / METRICS, {"stopped": run.stopped, "best_step": run.best_step, **run.metrics})


def read_run(adapter: str, folder: Path) -> TrainingRun:
    """A finished run from its folder; StorageError when its files are damaged."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        values = json.loads((folder / MEASUREMENT).read_text(encoding="utf-8"))
        measurement = Measurement(**{**values, "machine": Machine(**values["machine"])})
        return TrainingRun(adapter, metrics, measurement, metrics.pop("stopped"), metrics.pop("best_step"), folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(say("{path} is damaged: {reason}", path=folder, reason=error)) from error
