"""glibc's heap, where tensors are. Other C libraries are left alone.

These settings hold for the whole process, so only `tunedeck serve` applies them (server/run.py); the engine, which
other programs embed, does not.
"""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h


def keep_freed_memory() -> None:
    """From now on what a batch frees stays for the next one: up to 512 MB, in pieces of up to 32 MB.

    By default glibc gives much of it back and asks for it again, how much depends on the rest of the heap, and
    the page faults take up to an eighth of a batch's time.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 512 << 20)):
            libc.mallopt(option, value)


def give_back_freed_memory() -> None:
    """Hand everything that is free to the system, so that it does not count as used; what garbage holds is not free."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
