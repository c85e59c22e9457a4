"""How many steps and evaluations a run has; training and its plan count alike."""

from __future__ import annotations

import math

DEFAULT_EPOCHS = 2.0
DEFAULT_BATCH_SIZE = 32
FEWEST_STEPS = 40
"""Steps of a run on few examples whose epochs are not set."""
DEFAULT_WARMUP = 0.06
"""In a long run the learning rate rises in this share of the steps."""
SHORT_RUNS_WARMUP, WARMUP_STEPS = 0.2, 8
"""In a short run it rises in this share of the steps, but in eight at most. On 32 examples of each label this is 0.4
points of macro-F1 better than the share of a long run (docs/reference/defaults.md).
"""
CPU_POSITIONS = 1536
"""Positions of a micro-batch on a CPU, padding included, at most: what is kept for the backward pass grows with them,
and the time per position hardly falls any further (`bench/micro_batches.py`).
"""
FEWEST_EVALUATIONS, MOST_EVALUATIONS = 4, 10
EVALUATED_SHARE = 0.5
"""Held-out examples that a run evaluates for each example it trains on, at most. Without a backward pass they take a
third to a half of the time, so that evaluations take less than about a fifth of the run's.
"""


def steps_per_epoch(examples: int, batch_size: int, gradient_accumulation_steps: int) -> int:
    """Return optimizer steps in which every example is seen once; the last few batches may be left to the next
    epoch.
    """
    return max(1, math.ceil(examples / batch_size) // gradient_accumulation_steps)


def default_epochs(per_epoch: int) -> float:
    """Return the epochs of a run that sets none: two, or more where these would be fewer than FEWEST_STEPS."""
    return max(DEFAULT_EPOCHS, FEWEST_STEPS / per_epoch)


def total_steps(epochs: float | None, per_epoch: int) -> int:
    """Return the optimizer steps of a run, see `default_epochs`."""
    return max(1, round((default_epochs(per_epoch) if epochs is None else epochs) * per_epoch))


def warmup_steps(share: float | None, steps: int) -> int:
    """Return the steps in which the learning rate rises: this share of them, or what a run that sets none has."""
    if share is not None:
        return math.ceil(share * steps)
    return max(math.ceil(DEFAULT_WARMUP * steps), min(math.ceil(SHORT_RUNS_WARMUP * steps), WARMUP_STEPS))


def wanted_evaluations(epochs: float, steps: int) -> int:
    """Return evaluations of a run of `steps` that may stop early: one for each epoch, but four to ten."""
    return min(max(FEWEST_EVALUATIONS, math.ceil(epochs)), MOST_EVALUATIONS, steps)


def affordable_evaluations(epochs: float, held_out_ratio: float) -> int:
    """Return evaluations of `held_out_ratio` examples for each training example that `epochs` of training leave time
    for.
    """
    return int(EVALUATED_SHARE * epochs / held_out_ratio)


def planned_evaluations(epochs: float, steps: int, held_out_ratio: float) -> int:
    """Return evaluations of a whole run that may stop early; its last step always ends with one."""
    if not held_out_ratio or not steps:
        return 0
    return max(1, min(wanted_evaluations(epochs, steps), affordable_evaluations(epochs, held_out_ratio)))
