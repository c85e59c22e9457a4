"""What a run's events become in TensorBoard, MLflow, trackio or W&B, through accelerate's trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tunedeck.core.checks import is_installed, require
from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Each tracker's package, or those of which one will do."""
PROJECT = "tunedeck"

Listener = Callable[[Mapping[str, Any]], None]


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError when a tracker's package is missing."""
    for name in names:
        package = next(filter(is_installed, PACKAGES[name]), PACKAGES[name][0])
        require(f"training.trackers: {name}", [package], package)


@contextmanager
def tracked(names: Sequence[str], folder: Path | None, settings: Mapping[str, Any]) -> Iterator[Listener]:
    """Trackers that run while the block does; call what this yields with each event.

    TensorBoard writes below `folder`, or runs/; the others where they are told to by their own settings. Raises ConfigError
    for a missing package, TrainingError when a tracker does not start.
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
    """The numbers of a step as `train/...`, of an evaluation as `eval/...`; none of other events."""
    group = {"step": "train", "eval": "eval"}.get(event["event"])
    return {f"{group}/{key}": value for key, value in event.items() if group and key not in ("event", "at_s", "step")}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
