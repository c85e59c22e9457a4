"""The C libraries below torch on a CPU: glibc's heap, where tensors are, and GNU OpenMP's threads. Others are left
alone.

These settings hold for the whole process, so only `tunedeck serve` applies them (server/run.py, server/process.py); the
engine, which other programs embed, does not.
"""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h
_PAUSE_HARD = 2  # of omp.h


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


def end_helper_threads() -> None:
    """End the threads that have helped the calling one with its products; its next product starts them again.

    Every thread that computes has its own helper threads. While a process has more of them than processors, GNU OpenMP
    lets all of them sleep between two products, and waking them takes a third of a step of decoding.
    """
    for library in _gnu_openmp():
        with contextlib.suppress(AttributeError):  # older than OpenMP 5
            library.omp_pause_resource_all(_PAUSE_HARD)


@cache
def _gnu_openmp() -> list[ctypes.CDLL]:
    """Return the libraries of that kind in this process; LLVM's would end everybody's threads. Torch is loaded by now,
    and with it its own.
    """
    with contextlib.suppress(OSError):
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        return [ctypes.CDLL(path) for path in {line.split(maxsplit=5)[-1] for line in mapped if "/libgomp" in line}]
    return []
