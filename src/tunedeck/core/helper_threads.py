"""The threads with which GNU OpenMP helps each thread that computes on a CPU. Other OpenMP libraries are left alone."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from pathlib import Path

_PAUSE_HARD = 2  # of omp.h


def end_helper_threads() -> None:
    """End the threads that have helped the calling one with its products; its next product starts them again.

    Every thread that computes has its own helper threads. While a process has more of them than processors, GNU OpenMP
    lets all of them sleep between two products, and waking them doubles the time of a step of decoding.
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
