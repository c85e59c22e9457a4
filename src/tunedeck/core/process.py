"""Which of several processes this is, and the exit codes of one that a signal stopped."""

from __future__ import annotations

import os
import signal

USER_ERROR = 2
"""Exit code after an error that the user can mend."""
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
"""Exit codes after Ctrl-C and SIGTERM, as shells number them."""


def process_rank() -> int:
    """This process's number among all that `torchrun` or `accelerate launch` started; 0, the only one that prints and
    writes, else.
    """
    return int(os.environ.get("RANK", "0"))
