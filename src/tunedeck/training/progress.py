"""The progress bar of a run: step, loss, rate, memory and time left, on standard error."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import final

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tunedeck.core.i18n import say

_RECENT = 20
"""Number of latest steps over which the rate is averaged."""
_NARROW = 70
"""A terminal below this width gets no bar and no times, for which there is no room."""


@final
class Progress:
    """Show the progress of runs, one row for each; `show=False` prints nothing."""

    def __init__(self, device: torch.device, show: bool = True) -> None:
        self._device = device
        console = Console(stderr=True, markup=False, emoji=False)
        title, now = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[now]"))
        times = (TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn())
        narrow = console.width < _NARROW
        columns = (
            (title, MofNCompleteColumn(), now) if narrow else (title, BarColumn(16), MofNCompleteColumn(), now, *times)
        )
        self._bar = Bar(*columns, console=console, disable=not show)

    def row(self, title: str, progress_metrics: Sequence[str]) -> ProgressRow:
        """Return a row for one run; `title` is "" where there is only one, `progress_metrics` are what is shown."""
        return ProgressRow(self._bar, title, progress_metrics, self._device)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


@final
class ProgressRow:
    """One run's row in the progress bar."""

    def __init__(self, bar: Bar, title: str, progress_metrics: Sequence[str], device: torch.device) -> None:
        self._bar = bar
        self._title = title
        self._progress_metrics = progress_metrics
        self._device = device
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)  # when a step ended, and its tokens
        self._task = TaskID(0)

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, with the number of steps in all and of those that are done."""
        self._task = self._bar.add_task(self._title, total=steps, completed=done, now="", visible=steps > 0)

    def began(self, metrics: dict[str, float], seconds: float) -> None:
        """Note that the head has been fitted to the frozen base."""
        if not self._bar.disable:
            self.note(say("start ({seconds:.1f} s): {values}", values=self._shown(metrics), seconds=seconds))

    def step(self, step: int, loss: float, tokens: int) -> None:
        """Note that one step is done."""
        if self._bar.disable:
            return
        self._recent.append((time.perf_counter(), tokens))
        (first, _), (last, _) = self._recent[0], self._recent[-1]
        rate = sum(count for _, count in self._recent) - self._recent[0][1]
        now = say(
            "loss {loss:.3f}  {rate:,.0f} tokens/s  {memory:.1f} GB",
            loss=loss,
            rate=rate / (last - first) if last > first else 0,
            memory=used_bytes(self._device) / 1e9,
        )
        self._bar.update(self._task, completed=step, now=now)

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Note that an evaluation is done."""
        if not self._bar.disable:
            self.note(say("step {step}: {values}", step=step, values=self._shown(metrics)))

    def note(self, text: str) -> None:
        """Print a line about the run."""
        if not self._bar.disable:
            self._bar.console.print("  " + ": ".join(filter(None, [self._title, text])), soft_wrap=True)

    def _shown(self, metrics: dict[str, float]) -> str:
        return ", ".join(f"{name} {metrics[name]:.3f}" for name in self._progress_metrics if name in metrics)


def used_bytes(device: torch.device) -> int:
    """Return the memory that training uses now, on the GPU or in this process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
