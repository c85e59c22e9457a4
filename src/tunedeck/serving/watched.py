"""A thread that repeats one step, and can say when it is stuck or has died."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import final

from tunedeck.core.i18n import say

log = logging.getLogger("tunedeck.server")


@final
class WatchedThread:
    """Repeats `step` until `stop`; then, or after a fault, calls `ended` on the same thread.

    Its messages are in the language of the thread that started it.
    """

    def __init__(self, name: str, step: Callable[[], None], ended: Callable[[], None]) -> None:
        self.name = name
        self._step, self._ended = step, ended
        self._stopping = False
        self.fault: BaseException | None = None
        self._began_s = time.monotonic()
        work = partial(copy_context().run, self._run)
        self._thread = threading.Thread(target=work, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No further step."""
        self._stopping = True

    def join(self, timeout_s: float) -> None:
        """Wait for the current step; a stuck one is left behind when the time is up."""
        self._thread.join(timeout_s)

    def alarm(self, stall_s: float) -> str | None:
        """Return the fault of the thread: it ended, or its step has lasted longer than `stall_s`; None if it works."""
        if self.fault is not None:
            return say("the {name} thread has ended: {reason}", name=self.name, reason=type(self.fault).__name__)
        lasted = time.monotonic() - self._began_s
        if not self._stopping and lasted > stall_s:
            return say("the {name} thread has been in one step for {seconds:.0f} s", name=self.name, seconds=lasted)
        return None

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._began_s = time.monotonic()
                self._step()
        except BaseException as error:
            self.fault = error
            log.error("the %s thread has ended", self.name, exc_info=error)
        self._ended()
