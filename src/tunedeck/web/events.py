"""What a run folder tells while it is written: losses and qualities of every run in it, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

_PIECE = 8 << 20
_POINTS = 400
_NOT_A_METRIC = frozenset(["event", "at_s", "step", "loss"])
Point = tuple[float, float]


@final
class Tail:
    """Reads the whole lines that were added to a file of JSON lines; a file that got shorter is read anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the new lines; damaged ones are left out."""
        try:
            with self.path.open("rb") as file:
                self._at = 0 if file.seek(0, 2) < self._at else self._at
                file.seek(self._at)
                piece = file.read(_PIECE)
        except OSError:
            return
        whole = piece.rpartition(b"\n")[0]
        self._at += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


@dataclass
class Line:
    """One run or candidate: (step, loss) and (step, quality); of a race, (share of a run, quality)."""

    losses: list[Point] = field(default_factory=list)
    qualities: list[Point] = field(default_factory=list)
    metric: str = ""
    step: int = 0
    steps: int = 0
    at_s: float = 0.0
    ended: str = ""


@final
class Watched:
    """The lines of a run, a comparison or a race, by name; `read` takes in what was written since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: dict[str, Line] = {}
        self._tails: dict[str, Tail] = {}
        self._race = Tail(folder / "race.jsonl")

    def read(self) -> bool:
        """Return whether anything new was there."""
        changed = False
        for path in [self.folder / "events.jsonl", *sorted(self.folder.glob("runs/*/*/events.jsonl"))]:
            name = "" if path.parent == self.folder else path.parent.relative_to(self.folder / "runs").as_posix()
            for event in self._tails.setdefault(name, Tail(path)).read():
                _take(self.lines.setdefault(name, Line()), event)
                changed = True
        for event in self._race.read():
            changed = _take_rung(self.lines, event) or changed
        return changed


def _take(line: Line, event: dict[str, Any]) -> None:
    kind, step = event.get("event"), event.get("step")
    line.at_s = float(event.get("at_s") or line.at_s)
    if kind == "start":
        line.steps = int(event.get("steps") or 0)
        if not step:  # begun anew, not resumed
            line.losses, line.qualities = [], []
    elif kind == "end":
        line.ended = str(event.get("stopped") or "")
    if not isinstance(step, int):
        return
    line.step = max(line.step, step)
    if kind == "step" and isinstance(event.get("loss"), int | float):
        line.losses.append((step, float(event["loss"])))
        if len(line.losses) > 2 * _POINTS:
            line.losses = line.losses[::2]
    elif kind == "eval":
        line.metric = line.metric or next((key for key in event if key not in _NOT_A_METRIC), "loss")
        if isinstance(event.get(line.metric), int | float):
            line.qualities.append((step, float(event[line.metric])))


def _take_rung(lines: dict[str, Line], event: dict[str, Any]) -> bool:
    name, share, scores = event.get("name"), event.get("share"), event.get("scores")
    if not isinstance(name, str) or not isinstance(share, int | float) or not isinstance(scores, list):
        return False  # the first line holds the settings
    line = lines.setdefault(name, Line(steps=100))
    line.step, line.at_s = round(100 * share), float(event.get("at_s") or 0)
    if event.get("failed"):
        line.ended = str(event["failed"])
    elif scores:
        line.qualities.append((float(share), sum(scores) / len(scores)))
    return True
