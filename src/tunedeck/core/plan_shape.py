"""Describe the shape of a task's run to the planner, which knows no task by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanShape:
    """How a task's training runs use the base."""

    generate: bool = False
    """Whether the loss is over the vocabulary at every position."""
    labels: int = 2
    """Outputs of the head; 0 without a head."""
    chunk: int | None = None
    """Texts that are in memory at a time while a larger batch is contrasted; None for the whole batch."""
