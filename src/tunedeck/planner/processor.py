"""This machine's processor as it is now: what it multiplies and how fast, and how busy other programs keep it.

Loads no torch. numpy's matrix products are timed instead of torch's, which reach the same rate in float32.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy

from tunedeck.core.measurement import PRODUCT_S, fastest_s
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.memory import Setup

BFLOAT16_GAIN = {"amx_bf16": 6.0, "avx512_bf16": 4.0}
"""Rate of torch's product in bfloat16 over numpy's in float32. With AVX512-BF16 490 GFLOP/s over 123 on one thread of a
quiet AMD EPYC; 6 with AMX is a guess below its peak of 16.
"""
LARGEST_SHAPE = (1024, 1024, 2048)  # of a timed product: less than half a second on one core
LOAD_AVERAGE_S = 60.0  # in which the kernel's first load average forgets all but 1/e of what was (proc(5))
LOOKS, LOOK_S = 20, 0.01  # how often and how far apart the threads that are running are counted


@dataclass(frozen=True, slots=True)
class Processor:
    """Describe the processor's present performance."""

    flops_per_s: float
    """Rate of a matrix product of the run's shape."""
    load: float
    """Threads of other programs that want to compute, for each core."""


def processor_now(setup: Setup) -> Processor:
    """Time a product in float32 and count the threads of other programs."""
    load = other_load()  # before threads of numpy's product wait for another one
    rows, inner, columns = product_shape(setup)
    left, right = numpy.ones((rows, inner), "float32"), numpy.ones((inner, columns), "float32")
    rate = 2 * rows * inner * columns / fastest_s(lambda: left @ right, least_s=PRODUCT_S)
    return Processor(rate * bfloat16_gain(setup.dtype), load)


def bfloat16_gain(dtype: str) -> float:
    """Return this processor's rate in a precision over that in float32."""
    instructions = bfloat16_instructions() if dtype == "bfloat16" else None
    return 1.0 if instructions is None else BFLOAT16_GAIN[instructions]


def slowed(idle_s: Estimate, processor: Processor | None) -> Estimate:
    """Return the time of work that takes `idle_s` on an idle core while other programs share it.

    They may end, so the low value stays.
    """
    factor = 1 + (processor.load if processor else 0.0)
    return Estimate(idle_s.low, factor * idle_s.expected, factor * idle_s.high)


def product_shape(setup: Setup) -> tuple[int, int, int]:
    """Return rows, inner size and columns of a feed-forward layer's first product, where most of a step's arithmetic
    is.
    """
    shape = (setup.batch_tokens, setup.spec.hidden_size, setup.spec.ffn_size)
    rows, inner, columns = map(min, shape, LARGEST_SHAPE)
    return rows, inner, columns


def other_load(computed_s: float = 0.0) -> float:
    """Return the threads of other programs that want to compute now, for each core.

    Where the system does not count them, the load average without what this process has added in its last `computed_s`
    seconds; 0 where it has none either.
    """
    running = running_threads()
    if running is None:
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):  # Windows
            return 0.0
        running = load - usable_cores() * (1 - math.exp(-computed_s / LOAD_AVERAGE_S))
    return max(0.0, running) / (os.cpu_count() or 1)


def running_threads() -> float | None:
    """Return how many threads besides this one run or wait for a core, on average over a fifth of a second; None where
    Linux does not say.
    """
    counts = []
    try:
        for _ in range(LOOKS):
            time.sleep(LOOK_S)
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
            counts += [int(line.split()[1]) for line in lines if line.startswith("procs_running")]
    except (OSError, ValueError):
        return None
    return fmean(counts) - 1 if counts else None


def usable_cores() -> int:
    """Return cores that this process may use, at most OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(threads)) if threads.isdigit() and int(threads) else cores


@cache
def bfloat16_instructions() -> str | None:
    """Return the fastest instructions for bfloat16 that this processor has, by Linux' name; None where it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((name for name in BFLOAT16_GAIN if name in flags), None)
