"""What a run has seen so far: plain numbers, so that a checkpoint can hold them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import final

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say

ENDED = ("finished", "early", "time", "given up")
"""How a run has stopped that came to its end: there is nothing to resume."""


@dataclass
class Seen:
    """What one step saw; in a run of several processes, all of them together. Flags count the processes that raise them."""

    loss: float = 0.0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    largest_batch_positions: int = 0
    out_of_memory: int = 0
    stop: int = 0
    save: int = 0

    def add(self, loss: float, examples: int, tokens: int, positions: int, share: float) -> None:
        """One more piece of the step; one without a share in it is there to fill up and does not count."""
        if share == 0:
            return
        self.loss += loss
        self.examples += examples
        self.tokens += tokens
        self.positions += positions
        self.largest_batch_positions = max(self.largest_batch_positions, positions)

    def check_finite(self, step: int, rate: float) -> None:
        """Raise TrainingError when the step's loss is no number."""
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
class Outcome:
    """What the loop saw: the best metrics, and the time and tokens it took."""

    metrics: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    evaluations: int = 0
    evaluated_step: int = 0
    """The step of the last evaluation."""
    stale: int = 0
    """Evaluations since the best one."""
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    largest_batch_positions: int = 0
    splits: int = 1
    """Into how many pieces each batch is cut, because it did not fit into memory whole."""
    step_seconds: list[float] = field(default_factory=list)
    train_s: float = 0.0
    """Seconds in training steps."""
    eval_s: float = 0.0
    stopped: str = "finished"
    """"finished", "early" when patience ran out, "time" when max_minutes were over, "given up" by `give_up`,
    "interrupted" by Ctrl-C, "terminated" by SIGTERM or "failed"."""

    @property
    def step_s(self) -> float:
        """Median seconds of a step."""
        return median(self.step_seconds) if self.step_seconds else 0.0

    def count(self, seen: Seen, seconds: float) -> None:
        """One more step is done."""
        self.steps += 1
        self.examples += seen.examples
        self.tokens += seen.tokens
        self.positions += seen.positions
        self.largest_batch_positions = max(self.largest_batch_positions, seen.largest_batch_positions)
        self.step_seconds.append(seconds)
        self.train_s += seconds
