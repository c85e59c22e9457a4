"""Count steps and runs, name the ways in which a run can end, and compare two evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypeAlias, final

from tunedeck.core.errors import ConfigError, TrainingError
from tunedeck.core.i18n import listing, say

Ended: TypeAlias = Literal["finished", "early", "time", "stopped", "interrupted", "terminated", "failed", "paused"]
"""Reason why a run ended: all steps, `early_stopping_patience`, `max_minutes`, `should_stop`, Ctrl-C, SIGTERM,
error, the end of a stage.
"""

COMPLETE = ("finished", "early", "time", "stopped", "given up")
"""The values of `Ended` that leave nothing to resume; "given up" is how earlier versions wrote "stopped"."""


@final
@dataclass
class StepStats:
    """Count the work of one step, summed over all processes; a flag counts the processes that raise it."""

    loss: float = 0.0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    largest_batch_positions: int = 0
    out_of_memory: int = 0
    interrupted: int = 0
    terminated: int = 0
    save: int = 0

    @property
    def signal(self) -> Ended | None:
        """Return the reason to end after this step if any process has received a signal; SIGTERM before Ctrl-C."""
        return "terminated" if self.terminated else "interrupted" if self.interrupted else None

    def add(self, loss: float, examples: int, tokens: int, positions: int, share: float) -> None:
        """Count one more micro-batch; one without a share in the loss only fills up a process's turn."""
        if share == 0:
            return
        self.loss += loss
        self.examples += examples
        self.tokens += tokens
        self.positions += positions
        self.largest_batch_positions = max(self.largest_batch_positions, positions)

    def check_finite(self, step: int, rate: float) -> None:
        """Raise TrainingError when the step's loss is not a finite number."""
        if not math.isfinite(self.loss):
            raise TrainingError(
                say(
                    "the loss is {value} at step {step}; lower the learning rate (now {rate:g})",
                    value=self.loss,
                    step=step,
                    rate=rate,
                )
            )


@final
@dataclass
class RunState:
    """The progress of a run: the best metrics so far, and the time and tokens it took. Checkpoints hold it."""

    metrics: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    """0 is the start, before the first step."""
    start: dict[str, float] = field(default_factory=dict)
    """Metrics of the start, where the head begins as the solution on the frozen base's vectors."""
    head_only: dict[str, float] = field(default_factory=dict)
    """Metrics of a head on the frozen base alone, where the start's are others."""
    start_s: float = 0.0
    """Seconds that the start took."""
    start_kept: bool = False
    """Whether its vectors were read from disk."""
    evaluations: int = 0
    evaluated_step: int = 0
    """The step of the last evaluation."""
    reached: dict[str, float] = field(default_factory=dict)
    """The best metrics that steps have brought: a run may at first fall below its start."""
    stale: int = 0
    """Evaluations since those of `reached`."""
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    largest_batch_positions: int = 0
    splits: int = 1
    """The number of micro-batches that each batch is cut into, because it did not fit into memory whole."""
    step_seconds: list[float] = field(default_factory=list)
    train_s: float = 0.0
    """Seconds in training steps."""
    eval_s: float = 0.0
    stopped: Ended = "finished"
    planned_steps: int = 0
    """The steps that the run would have had without early stopping; known at its end."""

    @property
    def step_s(self) -> float:
        """Return median seconds of a step."""
        return median(self.step_seconds) if self.step_seconds else 0.0

    @property
    def saved_s(self) -> float:
        """Return about the seconds that early stopping saved, evaluations included."""
        if self.stopped != "early":
            return 0.0
        return (self.train_s + self.eval_s) * (self.planned_steps / self.steps - 1)

    def count(self, stats: StepStats, seconds: float) -> None:
        """Count one more step."""
        self.steps += 1
        self.examples += stats.examples
        self.tokens += stats.tokens
        self.positions += stats.positions
        self.largest_batch_positions = max(self.largest_batch_positions, stats.largest_batch_positions)
        self.step_seconds.append(seconds)
        self.train_s += seconds


def is_better(
    metrics: Mapping[str, float], before: Mapping[str, float], metric: str, lower_is_better: frozenset[str]
) -> bool:
    """Tell whether `metrics` are better than `before` by `metric`, or by a lower loss where that is equal.

    Raises ConfigError when there is no metric of that name.
    """
    if metric not in metrics:
        raise ConfigError(
            say(
                "training.metric_for_best_model must be one of {allowed}, got {value!r}",
                allowed=listing(metrics),
                value=metric,
            )
        )
    if not before:
        return True
    now, then = metrics[metric], before[metric]
    if now == then:
        return metrics.get("loss", math.inf) < before.get("loss", math.inf)
    return now < then if metric in lower_is_better else now > then
