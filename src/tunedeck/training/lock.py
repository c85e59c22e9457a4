"""The lock of a run folder: one process writes it. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder, which is made, while the block runs; the lock is freed when its process
    dies.

    Raises TrainingError where another process holds it. Nothing is locked where the file system knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise TrainingError(
            say("another process is training the run in {path}; wait until it ends, or stop it", path=folder)
        ) from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Tell whether a process is writing a run folder now; False where the file system knows no locks."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False
