"""Configure the process of `tunedeck serve`; a library must not change its host's threads or garbage collector."""

from __future__ import annotations

import gc
from typing import final

from tunedeck.core.native import end_helper_threads
from tunedeck.serving.factory import Listener


def settle_process() -> None:
    """Call it in the thread that has loaded the base, when all is loaded and before the first request.

    Base and libraries stay: the garbage collector looking through them would stop every answer for a fifth of a second.
    The helper threads of the calling thread end, which would slow the engine's down.
    """
    end_helper_threads()
    gc.freeze()


@final
class WithoutHelperThreads:
    """A listener that passes everything on, and ends the helper threads that an adapter's loading has begun.

    A store reports a load in the thread that has just read the adapter's tensors.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.on_step, self.on_done = listener.on_step, listener.on_done

    def on_store_event(self, event: str, adapter: str) -> None:
        """Handle an event of the adapter store."""
        if event in ("load", "fail"):
            end_helper_threads()
        self._listener.on_store_event(event, adapter)
