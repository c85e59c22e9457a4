"""Events of a run folder, read while it is written: losses and qualities of every run in it, piece by piece."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from tunedeck.web.shelf import read_values

_PIECE = 8 << 20
_POINTS = 400
_WHOLE_LINES = 4000
"""Lines of a piece up to which every step is read; of more, some are enough for a curve."""
_RECENT = 64
"""Steps from which the speed is computed."""
_NOT_A_METRIC = frozenset(["event", "at_s", "step", "loss"])
_EVENTS, _LOG, _STANDING, _RESULT = "events.jsonl", "race.jsonl", "standing.json", "race.json"
_STEP = b'"event": "step"'
Point = tuple[float, float]


@final
class Tail:
    """Reads the whole lines that were added to a file of JSON lines; a file that got shorter is read anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the new lines, of very many steps only some; damaged lines are left out."""
        try:
            with self.path.open("rb") as file:
                self._at = 0 if file.seek(0, 2) < self._at else self._at
                file.seek(self._at)
                piece = file.read(_PIECE)
        except OSError:
            return
        whole = piece.rpartition(b"\n")[0]
        self._at += len(whole) + 1 if whole else 0
        lines = whole.splitlines()
        every = 1 + len(lines) // _WHOLE_LINES
        for number, line in enumerate(lines):
            if number % every and _STEP in line and number < len(lines) - _RECENT:
                continue
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


@dataclass
class Line:
    """One run or candidate: (step, loss) and (step, quality); of a race, (seconds spent on it, quality)."""

    losses: list[Point] = field(default_factory=list)
    qualities: list[Point] = field(default_factory=list)
    metric: str = ""
    step: int = 0
    steps: int = 0
    at_s: float = 0.0
    ended: str = ""
    reason: str = ""
    """Why a candidate of a race has stopped."""
    every: int = 1
    """The number of steps of which one is kept."""
    recent: deque[Point] = field(default_factory=lambda: deque(maxlen=_RECENT))
    """The latest (seconds, step)."""

    @property
    def steps_per_s(self) -> float:
        """Return the speed of the latest steps; 0 where it is not known."""
        if len(self.recent) < 2:
            return 0.0
        (began, first), (ended, last) = self.recent[0], self.recent[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


@final
class Watched:
    """The lines of a run, a comparison or a race, by name; `read` takes in what was written since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: dict[str, Line] = {}
        self.standing: dict[str, Any] = {}
        """The candidates, limit and price of a race."""
        self._tails: dict[Path, Tail] = {}
        self.training = Line()
        """The candidate of a race that is in training."""
        self.at_s = 0.0
        """Seconds that a race has taken so far."""
        self._race = Tail(folder / _LOG)
        self._seen: dict[str, float] = {}

    @property
    def is_race(self) -> bool:
        """Tell whether the folder is that of a race."""
        return (self.folder / _LOG).exists() or (self.folder / _RESULT).exists()

    def age_s(self) -> float:
        """Return seconds since the folder's events were written; infinite where there are none."""
        files = [self.folder / _LOG, self.folder / _EVENTS, *self._tails]
        return time.time() - max(map(_written, files)) if any(map(_written, files)) else math.inf

    def read(self) -> bool:
        """Return whether anything new was there."""
        changed = False
        for path in [self.folder / _EVENTS, *sorted(self.folder.glob("runs/*/*/events.jsonl"))]:
            name = "" if path.parent == self.folder else path.parent.relative_to(self.folder / "runs").as_posix()
            for event in self._tails.setdefault(path, Tail(path)).read():
                _take(self.lines.setdefault(name, Line()), event)
                changed = True
        return self._read_race() or changed if self.is_race else changed

    def _read_race(self) -> bool:
        if _written(self.folder / _RESULT) >= _written(self.folder / _LOG):
            return self._read_result()
        changed = self._read_standing()
        names = {str(one["key"]): str(one["name"]) for one in self.standing.get("candidates", ())}
        for event in self._race.read():
            name = names.get(str(event.get("name")))
            if name is not None:
                _take_rung(self.lines[name], event, bool(self.standing.get("lower_is_better")))
                self.at_s, changed = float(event.get("at_s") or 0), True
        for path in self.folder.glob("candidates/*/events.jsonl"):
            for event in self._tails.setdefault(path, Tail(path)).read():
                if event.get("event") in ("start", "resume"):
                    self.training = Line()
                _take(self.training, event)
                changed = True
        return changed

    def _read_standing(self) -> bool:
        """Take in the names of the candidates, and why some have stopped."""
        if not self._is_new(_STANDING):
            return False
        self.standing = read_values(self.folder / _STANDING)
        for one in self.standing.get("candidates", ()):
            self.lines.setdefault(str(one["name"]), Line(steps=100)).reason = str(one["text"])
        return True

    def _read_result(self) -> bool:
        """Take in the candidates of a race that has ended."""
        if not self._is_new(_RESULT):
            return False
        found = read_values(self.folder / _RESULT)
        self.at_s, self.standing = float(found.get("total_s") or 0), {"price": found.get("price")}
        for one in found.get("candidates", ()):
            points = [(float(point["seconds"]), float(point["quality"])) for point in one["points"]]
            share = one["points"][-1]["share"] if points else 0
            spent = points[-1][0] if points else 0.0
            ended = "winner" if one["status"] == "winner" else ""
            self.lines[str(one["name"])] = Line(
                qualities=points, step=round(100 * share), steps=100, at_s=spent, ended=ended, reason=str(one["text"])
            )
        return True

    def _is_new(self, name: str) -> bool:
        """Tell whether a file was written since it was asked for last."""
        written = _written(self.folder / name)
        if written == self._seen.get(name, 0.0):
            return False
        self._seen[name] = written
        return True


def _written(file: Path) -> float:
    """Return when a file was written; 0 where there is none."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _take(line: Line, event: Mapping[str, Any]) -> None:
    kind, step = event.get("event"), event.get("step")
    line.at_s = float(event.get("at_s") or line.at_s)
    if kind in ("start", "resume"):
        line.steps, line.ended = int(event.get("steps") or 0), ""
        line.recent.clear()
        if kind == "start":  # begun anew, not resumed
            line.losses, line.qualities, line.every, line.step = [], [], 1, 0
    elif kind == "end":
        line.ended = str(event.get("stopped") or "")
    if not isinstance(step, int):
        return
    line.step = max(line.step, step)
    if kind == "step" and isinstance(event.get("loss"), int | float):
        line.recent.append((line.at_s, step))
        if step >= (line.losses[-1][0] if line.losses else 0) + line.every:
            line.losses.append((step, float(event["loss"])))
        if len(line.losses) > 2 * _POINTS:
            line.losses, line.every = line.losses[::2], 2 * line.every
    elif kind == "eval":
        line.metric = line.metric or next((key for key in event if key not in _NOT_A_METRIC), "loss")
        if isinstance(event.get(line.metric), int | float):
            line.qualities.append((step, float(event[line.metric])))


def _take_rung(line: Line, event: Mapping[str, Any], lower_is_better: bool) -> None:
    share, scores = event.get("share"), event.get("scores")
    if not isinstance(share, int | float) or not isinstance(scores, list):
        return
    line.step, line.at_s = round(100 * share), line.at_s + float(event.get("seconds") or 0)
    if event.get("failed"):
        line.ended = str(event["failed"])
    elif scores:
        line.qualities.append((line.at_s, (-1 if lower_is_better else 1) * sum(scores) / len(scores)))
