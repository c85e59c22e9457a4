"""One process at a time writes a run folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder, which is made, while the block runs; the lock goes with its process, however that ends.

    Raises TrainingError where another process holds it. Nothing is locked on Windows, nor where the file system knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                say("the run in {path} is under way in another process; wait for its end, or stop it", path=folder)
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
