"""Which of several processes this is, the exit codes of one that a signal stopped, and its garbage collector."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

USER_ERROR = 2
"""Exit code after an error that the user can mend."""
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
"""Exit codes after Ctrl-C and SIGTERM, as shells number them."""
PIPE_CLOSED = 128 + 13
"""Exit code when the reader of a pipe has gone: shells' number for SIGPIPE, which Windows lacks."""


def process_rank() -> int:
    """This process's number among all that `torchrun` or `accelerate launch` started; 0, the only one that prints and
    writes, else.
    """
    return int(os.environ.get("RANK", "0"))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause Python's garbage collector while much is made that stays: each of its passes would look at all of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
