"""The process that a run is trained in."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from tunedeck.comparison.runs import _watched


def test_outside_the_main_thread_a_command_is_watched_without_signal_handlers() -> None:
    command = [sys.executable, "-c", "import sys; print('no disk left', file=sys.stderr); sys.exit(3)"]
    with ThreadPoolExecutor(1) as other:
        code, errors, asked = other.submit(_watched, command, quiet=True).result()
    assert (code, errors.strip(), asked) == (3, "no disk left", None)
