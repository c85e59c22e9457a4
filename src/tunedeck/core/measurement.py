"""Store the measurements of a run on this machine, which the planner reads and compares with its predictions."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

import psutil

PRODUCT_S = 0.3
"""The time for which a matrix product is repeated to find the rate of cores that nobody else uses."""
_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine a measurement was taken on."""

    system: str
    cpu: str
    cpu_cores: int
    memory_bytes: int
    gpu: str | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One training run in numbers; seconds are wall-clock, memory is of the whole process."""

    machine: Machine
    device: str
    dtype: str
    model: str
    method: str
    batch_size: int
    steps: int
    train_s: float
    """Training steps alone, without loading and evaluation."""
    eval_s: float
    step_s: float
    """Median of a step."""
    examples_per_s: float
    tokens_per_s: float
    """Real tokens, padding not counted."""
    padded_share: float
    """Share of the processed positions that was padding, 0 to 1."""
    peak_memory_bytes: int
    largest_batch_positions: int = 0
    """Padded tokens of the largest micro-batch, which sets the peak; 0 in files from before it was kept."""
    texts_per_example: float = 1.0
    """Rows of the base's batches for each example: two or three where pairs or triplets are contrasted."""
    start_s: float = 0.0
    """Fitting the head to the frozen base before the first step."""
    quantize: str | None = None
    """Quantization of the base; `dtype` is the precision of computation."""
    planned_steps: int = 0
    """The steps that the run would have had without early stopping; 0 in files from before it was kept."""
    saved_s: float = 0.0
    """About what those that early stopping left out would have taken, evaluations included."""
    start_kept: bool = False
    """Whether the start read its vectors from disk, where an earlier run on the same texts had left them."""
    epochs: float = 0.0
    """Passes over the data that the steps made; 0 in files from before it was kept."""
    evaluation_share: float = 0.0
    """Held-out examples for each one trained on; 0 in files from before it was kept."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def this_machine() -> Machine:
    """Return this machine; the caller that loads torch adds its GPU."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cpu_cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )


def fastest_s(work: Callable[[], object], rounds: int = 7, least_s: float = 0.0) -> float:
    """Return seconds of the fastest of a few rounds after a first one: other programs can only make it slower.

    There are more rounds until they have taken `least_s`: among many short ones, some have the cores to themselves.
    """
    work()
    taken: list[float] = []
    while len(taken) < rounds or sum(taken) < least_s:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@final
class PeakMemory:
    """Samples this process's resident memory in a thread while the block runs; `peak_bytes` is the highest seen."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
            if self._done.wait(_INTERVAL_S):
                return
