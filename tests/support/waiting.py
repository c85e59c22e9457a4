"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

SOON = 60
"""Seconds after which a test gives up; on an idle machine each wait takes a fraction of one."""


def eventually(holds: Callable[[], bool]) -> None:
    """Return as soon as something holds."""
    until = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.002)
