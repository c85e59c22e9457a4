"""A race as plain values: what `race.json` holds and the report reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunedeck.comparison.report.values import Data, Interval, Price, Repeat


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate at a rung: quality on the rung's held-out examples, and the seconds spent on it so far."""

    share: float
    rows: int
    quality: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Raced:
    """One candidate; `status` is "winner" or the reason why it went no further."""

    name: str
    settings: dict[str, Any]
    size: int
    """Trainable parameters."""
    status: str
    text: str
    """The reason in a sentence."""
    points: tuple[Point, ...]
    cost: float | None
    """Price per hour times hours; None without a price."""

    @property
    def seconds(self) -> float:
        """Return all seconds spent on it."""
        return self.points[-1].seconds if self.points else 0.0


@dataclass(frozen=True, slots=True)
class Rung0:
    """A head on one base's frozen vectors; no quality for a task without such a head."""

    base: str
    parameters: int
    quality: float | None
    seconds: float
    chosen: bool
    worse: bool
    """Whether it is significantly worse than another."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The winner on the examples that chose it and on the untouched ones.

    Intervals hold 95 %: of the quality on the untouched examples, of how much the race overstates the winner, and of
    what it gains on them over a head on the frozen base.
    """

    name: str
    step: int
    """The step of the state that was kept."""
    steps: int
    """The steps of a whole run."""
    raced: float
    untouched: float
    interval: Interval
    overstated: Interval
    floor: float | None
    gain: Interval | None
    metrics: dict[str, float]
    """All metrics on the untouched examples."""


@dataclass(frozen=True, slots=True)
class RaceValues:
    """Everything that was found; `metric` is the quality, its higher values better or not."""

    task: str
    model: str
    data: Data
    untouched: int
    """Examples that measured the winner alone; `data.held_out` are those that chose it."""
    metric: str
    higher_is_better: bool
    candidates: tuple[Raced, ...]
    bases: tuple[Rung0, ...]
    verdict: Verdict
    ended: str
    until: str
    alpha: float
    price: Price | None
    repeat: Repeat
    total_s: float
    folder: str

    @property
    def winner(self) -> Raced | None:
        """Return the candidate that won; None where nothing was better than a head on the frozen base."""
        return next((one for one in self.candidates if one.status == "winner"), None)

    @property
    def adapter_folder(self) -> Path:
        """Return the saved adapter."""
        return Path(self.folder) / "adapter"
