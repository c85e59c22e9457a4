"""Record a finished run: its measurement, its metrics, its adapter and a figure of its losses."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Machine, Measurement, this_machine
from tunedeck.core.storage import write_bytes, write_json
from tunedeck.deck.deck import Deck
from tunedeck.formats.centroids import Centroids
from tunedeck.formats.confidence import Confidence
from tunedeck.formats.folder import adapter_bytes
from tunedeck.formats.manifest import DataRecord
from tunedeck.tasks.base import Dataset
from tunedeck.training.config import TrainingSettings
from tunedeck.training.resume import EVENTS, METRICS
from tunedeck.training.state import Ended, RunState

MEASUREMENT = "measurement.json"
WINDOWS = 15
"""The smoothed loss is a mean over this part of the run."""
TRAIN, HELD_OUT, THIRD = "#1f5fa8", "#d1495b", "#2a9d6f"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Hold the results of a run and the path of its folder."""

    adapter: str
    metrics: dict[str, float]
    measurement: Measurement
    stopped: Ended
    best_step: int
    folder: Path | None
    """The run folder; None when `out` was not given."""
    start: dict[str, float] = field(default_factory=dict)
    """Metrics before the first step, where the head began as the solution on the frozen base's vectors."""
    head_only: dict[str, float] = field(default_factory=dict)
    """Metrics of a head on the frozen base alone, where the start's are others."""

    @property
    def kept_start(self) -> bool:
        """Tell whether no step brought more than the start."""
        return bool(self.start) and self.best_step == 0 and self.measurement.steps > 0

    @property
    def below_head_only(self) -> bool:
        """Tell whether a head on the frozen base alone has a better accuracy, or whatever metric comes first."""
        return any(value > self.metrics[name] for name, value in list(self.head_only.items())[:1])

    @property
    def still_improving(self) -> bool:
        """Tell whether the last evaluation is the best, not all answers of it are right, and its loss is below the one
        before it, or below the start's.
        """
        if self.folder is None or self.best_step != self.measurement.steps or self.metrics.get("accuracy") == 1:
            return False
        evaluations = [event for event in read_events(self.folder) if event["event"] == "eval"]
        losses = [values["loss"] for values in (self.start, *evaluations) if "loss" in values]
        return len(losses) > 1 and losses[-1] < losses[-2]

    @property
    def adapter_folder(self) -> Path | None:
        """Return the saved adapter inside the run folder."""
        return self.folder / "adapter" if self.folder else None

    def to_json(self) -> dict[str, Any]:
        """Return metrics by name, times in seconds and paths, as plain JSON values."""
        return {
            "adapter": self.adapter,
            **self.metrics,
            "start": self.start or None,
            "head_only": self.head_only or None,
            "start_s": self.measurement.start_s,
            "train_s": self.measurement.train_s,
            "eval_s": self.measurement.eval_s,
            "examples_per_s": self.measurement.examples_per_s,
            "peak_memory_bytes": self.measurement.peak_memory_bytes,
            "steps": self.measurement.steps,
            "planned_steps": self.measurement.planned_steps,
            "saved_s": self.measurement.saved_s,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "run": None if self.folder is None else str(self.folder),
            "adapter_folder": None if self.adapter_folder is None else str(self.adapter_folder),
            "adapter_bytes": None if self.adapter_folder is None else adapter_bytes(self.adapter_folder),
        }


def measured(
    deck: Deck,
    adapter: str,
    settings: TrainingSettings,
    state: RunState,
    peak_bytes: int,
    texts_per_example: float,
    dataset: Dataset[Any],
) -> Measurement:
    """Return the run in numbers; `peak_bytes` is the process's."""
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
        steps=state.steps,
        train_s=state.train_s,
        eval_s=state.eval_s,
        step_s=state.step_s,
        examples_per_s=state.examples / state.train_s if state.steps else 0.0,
        tokens_per_s=state.tokens / state.train_s if state.steps else 0.0,
        padded_share=1 - state.tokens / state.positions if state.positions else 0.0,
        peak_memory_bytes=peak_bytes,
        largest_batch_positions=state.largest_batch_positions,
        texts_per_example=texts_per_example,
        quantize=deck.base.quantize,
        start_s=state.start_s,
        start_kept=state.start_kept,
        planned_steps=state.planned_steps,
        saved_s=state.saved_s,
        epochs=state.examples / len(dataset.train),
        evaluation_share=len(dataset.evaluation) / len(dataset.train),
    )


def record(deck: Deck, dataset: Dataset[Any], run: TrainingRun, centroids: Centroids | None) -> None:
    """Keep metrics, data, centroids and measurement with the adapter, and write what the run folder ends with."""
    adapter = deck.adapter(run.adapter)
    metrics, confidence = without_temperature(run.metrics)
    adapter.manifest = adapter.manifest.model_copy(
        update={
            "metrics": metrics,
            "confidence": confidence,
            "data": DataRecord(
                source=dataset.source,
                sha256=dataset.sha256,
                examples=len(dataset.train),
                text_column=dataset.text_column,
            ),
            "measurement": run.measurement.to_json(),
            "centroids": centroids,
        }
    )
    if run.folder is not None and run.adapter_folder is not None:
        deck.save(run.adapter, run.adapter_folder)
        write_json(run.folder / MEASUREMENT, run.measurement.to_json())
        kept = {"stopped": run.stopped, "best_step": run.best_step, "start": run.start, "head_only": run.head_only}
        write_json(run.folder / METRICS, {**kept, **run.metrics})


def without_temperature(metrics: Mapping[str, float]) -> tuple[dict[str, float], Confidence | None]:
    """Return what `Objective.evaluate` measured, and what is kept of its temperature, where it has one."""
    temperature = metrics.get("temperature")
    kept = {name: value for name, value in metrics.items() if name != "temperature"}
    return kept, None if temperature is None else Confidence(temperature=temperature)


def read_run(adapter: str, folder: Path) -> TrainingRun:
    """Return a finished run from its folder; StorageError when its files are damaged."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        values = json.loads((folder / MEASUREMENT).read_text(encoding="utf-8"))
        measurement = Measurement(**{**values, "machine": Machine(**values["machine"])})
        start, head_only = metrics.pop("start", {}), metrics.pop("head_only", {})
        stopped, best_step = metrics.pop("stopped"), metrics.pop("best_step")
        return TrainingRun(adapter, metrics, measurement, stopped, best_step, folder, start, head_only)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(say("{path} is damaged: {reason}", path=folder, reason=error)) from error


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the steps, evaluations, checkpoints and failures of a run, in order."""
    return [json.loads(line) for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines()]


def draw(folder: Path, title: str, metrics: Sequence[str]) -> None:
    """Write loss.png and loss.svg from a run folder's events.jsonl; `metrics` are the ones to show with the loss.

    Labels are English, which every font has. Nothing is written for a run without a step.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    events = read_events(folder)
    steps = [event for event in events if event["event"] == "step"]
    evaluations = [event for event in events if event["event"] == "eval"]
    if not steps:
        return
    shown = [name for name in metrics if name != "loss" and any(name in event for event in evaluations)]
    figure = Figure(figsize=(10 if shown else 6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
    _losses(axes[0], steps, evaluations)
    if shown:
        for name, colour in zip(shown, (HELD_OUT, THIRD, TRAIN), strict=False):
            axes[1].plot(*_curve(evaluations, name), marker="o", markersize=4, color=colour, label=name)
        axes[1].set(xlabel="step", title="held-out metrics")
    for one in axes:
        one.set_xlim(left=0)
        one.grid(True, alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
        one.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    for kind in ("png", "svg"):
        image = io.BytesIO()
        with rc_context({"svg.hashsalt": "tunedeck"}):
            figure.savefig(image, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
        write_bytes(folder / f"loss.{kind}", image.getvalue())


def _losses(axes: Any, steps: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> None:
    numbers, losses = _curve(steps, "loss")
    window = max(1, len(losses) // WINDOWS)
    axes.plot(
        numbers,
        losses,
        color=TRAIN,
        alpha=0.25 if window > 1 else 1,
        linewidth=1,
        label=None if window > 1 else "training",
    )
    if window > 1:
        label = f"training, mean of {window} steps"
        axes.plot(numbers, _running_mean(losses, window), color=TRAIN, linewidth=1.6, label=label)
    if any("loss" in event for event in evaluations):
        axes.plot(*_curve(evaluations, "loss"), marker="o", markersize=4, color=HELD_OUT, label="held out")
    axes.set(xlabel="step", title="loss")


def _curve(events: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    known = [event for event in events if name in event]
    return [event["step"] for event in known], [event[name] for event in known]


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values at each place, of fewer at the beginning."""
    sums = [0.0, *accumulate(values)]
    return [(sums[end] - sums[max(0, end - window)]) / min(end, window) for end in range(1, len(values) + 1)]
