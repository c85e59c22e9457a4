"""The progress bar of a run: step, loss, rate and time left, on standard error."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tunedeck.core.messages import say


@final
class Progress:
    """Shows a run as it goes; `show=False` says nothing."""

    def __init__(self, title: str, batch_examples: int, headline: Sequence[str], show: bool = True) -> None:
        console = Console(stderr=True)
        self._batch_examples = batch_examples
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            console=console,
            disable=not show,
        )
        self._title = title
        self._headline = headline
        self._task: TaskID | None = None

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, with the number of steps in all and of those that are done."""
        self._task = self._bar.add_task(self._title, total=steps, completed=done, now="")

    def step(self, step: int, loss: float) -> None:
        """One step is done."""
        assert self._task is not None
        speed = self._bar.tasks[0].speed
        rate = say("{rate:.0f} examples/s", rate=speed * self._batch_examples) if speed else ""
        self._bar.update(self._task, completed=step, now=say("loss {loss:.3f}  {rate}", loss=loss, rate=rate))

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """An evaluation is done."""
        if self._bar.disable:
            return
        values = ", ".join(f"{name} {metrics[name]:.3f}" for name in self._headline if name in metrics)
        self._bar.console.print(say("  step {step}: {values}", step=step, values=values))

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
