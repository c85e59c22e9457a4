"""The figure of a run: its losses and its metrics over the steps."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tunedeck.core.storage import write_bytes

WINDOWS = 15
"""The smoothed loss is a mean over this part of the run."""
TRAIN, HELD_OUT, THIRD = "#1f5fa8", "#d1495b", "#2a9d6f"


def draw(folder: Path, title: str, metrics: Sequence[str]) -> None:
    """Write loss.png and loss.svg from a run folder's events.jsonl; `metrics` are the ones to show beside the loss.

    Labels are English, which every font has. Nothing is written for a run without a step.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
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
    """The mean of the last `window` values at each place, of fewer at the beginning."""
    sums = [0.0, *accumulate(values)]
    return [(sums[end] - sums[max(0, end - window)]) / min(end, window) for end in range(1, len(values) + 1)]
