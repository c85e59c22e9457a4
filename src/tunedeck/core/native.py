"""The C libraries below torch on a CPU: glibc's heap, where tensors lie, and GNU OpenMP's threads. Others are left alone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

_KEPT_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h
_PAUSE_HARD = 2  # of omp.h


def keep_freed_memory() -> None:
    """From now on what a batch frees stays for the next one, up to 1 GiB.

    By default glibc gives large pieces back and asks for them again, how often depends on what else lies in the heap, and the
    page faults take up to an eighth of a batch's time.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _KEPT_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES)):
            libc.mallopt(option, value)


def give_back_freed_memory() -> None:
    """Hand everything that is free to the system, so that it does not count as used."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def end_helper_threads() -> None:
    """End the threads that have helped the calling one with its products; its next product starts them again.

    Every thread that computes has helpers of its own. While a process has more of them than processors, GNU OpenMP lets all of
    them sleep between two products, and waking them takes a third of a step of decoding.
    """
    with contextlib.suppress(OSError, AttributeError):
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        for library in {line.split()[-1] for line in mapped if "/libgomp" in line}:
            ctypes.CDLL(library).omp_pause_resource_all(_PAUSE_HARD)
