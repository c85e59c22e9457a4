"""Ctrl-C and SIGTERM as a request to stop, which the loop heeds where its state is complete: between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, final

from tunedeck.training.state import Ended


@final
class StopSignals:
    """While the block runs, the first signal is kept in `seen`; a second Ctrl-C raises KeyboardInterrupt at once.

    A second SIGTERM does not: a batch system sends one to every process, and so does a parent that passes on its own.

    Outside the main thread, where Python allows no handlers, signals do what they always do.
    """

    def __init__(self) -> None:
        self.seen: signal.Signals | None = None
        self._at_once = False
        self._interrupts = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def ended(self) -> Ended | None:
        """Return the name of the end that the received signal causes; None if there was no signal."""
        if self.seen is None:
            return None
        return "terminated" if self.seen is signal.SIGTERM else "interrupted"

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Allow work to be interrupted anywhere: inside the block the first signal raises KeyboardInterrupt too."""
        if self.seen is not None:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._handle) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.seen = self.seen or signal.Signals(number)
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1 or self._at_once:
            raise KeyboardInterrupt
