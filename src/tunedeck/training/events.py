"""Record the events of a run as lines of JSON in events.jsonl and in trackers such as TensorBoard."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, final

from accelerate import Accelerator

from tunedeck.core.checks import is_installed, require
from tunedeck.core.errors import StorageError, TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Each tracker's package, or those of which one will do."""
PROJECT = "tunedeck"

Listener = Callable[[Mapping[str, Any]], None]


@final
class EventLog:
    """Appends one JSON object per event, written at once, with its kind and the seconds since the run began.

    `place`, as returned by `mark`, continues an earlier log and cuts off what was written after it; `listener` is told
    each event, too. Raises StorageError when the disk refuses.
    """

    def __init__(
        self,
        path: Path | None,
        place: Mapping[str, Any] | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._path = path
        self._listener = listener
        self._start = time.perf_counter() - (place["at_s"] if place else 0.0)
        self._file = None
        if path is not None:
            path.touch()
            self._file = path.open("r+b", buffering=0)
            kept = place["bytes"] if place else 0
            if path.stat().st_size < kept:
                text = say("{path} is shorter than the checkpoint remembers; events are missing", path=path)
                warnings.warn(text, stacklevel=2)
            self._file.truncate(min(kept, path.stat().st_size))
            self._file.seek(0, os.SEEK_END)

    def write(self, kind: str, **values: Any) -> None:
        """Append an event."""
        event = {"event": kind, "at_s": round(time.perf_counter() - self._start, 3), **values}
        if self._listener is not None:
            self._listener(event)
        if self._file is None:
            return
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        try:
            while line:  # a disk that is nearly full takes a part, and says why at the next
                line = line[self._file.write(line) :]
        except OSError as error:
            raise StorageError(
                say("cannot write {path}: {reason}", path=self._path, reason=system_reason(error))
            ) from error

    def mark(self) -> dict[str, Any]:
        """Return the place in the log, everything before it safe on the disk."""
        at_s = time.perf_counter() - self._start
        if self._file is None:
            return {"bytes": 0, "at_s": at_s}
        os.fsync(self._file.fileno())
        return {"bytes": self._file.tell(), "at_s": at_s}

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError when a tracker's package is missing."""
    for name in names:
        package = next(filter(is_installed, PACKAGES[name]), PACKAGES[name][0])
        require(f"training.trackers: {name}", [package], package)


@contextmanager
def tracked(names: Sequence[str], folder: Path | None, settings: Mapping[str, Any]) -> Iterator[Listener]:
    """Trackers that run while the block does; call what this yields with each event.

    TensorBoard writes below `folder`, or runs/; the others where they are told to by their settings. Raises
    ConfigError for a missing package, TrainingError when a tracker does not start.
    """
    if not names:
        yield lambda event: None
        return
    check_trackers(names)
    accelerator = Accelerator(log_with=list(names), project_dir=str(folder or "runs"))
    try:
        accelerator.init_trackers(PROJECT, {key: _plain(value) for key, value in settings.items()})
    except Exception as error:
        raise TrainingError(say("a tracker does not start: {reason}", reason=error)) from error

    def listen(event: Mapping[str, Any]) -> None:
        values = _values(event)
        if values:
            accelerator.log(values, step=event["step"])

    try:
        yield listen
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _values(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a step as `train/...`, of an evaluation as `eval/...`; none of other events."""
    group = {"step": "train", "eval": "eval"}.get(event["event"])
    return {f"{group}/{key}": value for key, value in event.items() if group and key not in ("event", "at_s", "step")}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
