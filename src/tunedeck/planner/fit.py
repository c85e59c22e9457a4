"""Whether a run fits a GPU, and the largest micro-batch that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.memory import MemoryParts, Setup, memory_parts

COMPRESSED = 1.05
"""Device use over allocated near the limit, where the allocator gives back its cache: 1.04 to 1.12 in
fms-acceleration's rows, of which the fullest that still ran was at 1.04. So allocated memory decides, not what
nvidia-smi shows.
"""
LARGEST_MICRO_BATCH = 1024


def needed_bytes(parts: MemoryParts) -> float:
    """Return the memory that a GPU needs for the run."""
    return COMPRESSED * parts.allocated + parts.context


def fits(parts: MemoryParts, gpu: Gpu) -> bool:
    """Tell whether the run is expected to fit on the GPU."""
    return needed_bytes(parts) <= gpu.visible_bytes


def largest_micro_batch(setup: Setup, gpu: Gpu, parts: Callable[[Setup], MemoryParts] = memory_parts) -> int:
    """Return the largest power of two that fits, up to LARGEST_MICRO_BATCH; 0 when not even one row does."""
    size = 0
    while size < LARGEST_MICRO_BATCH:
        larger = max(1, 2 * size)
        if not fits(parts(replace(setup, micro_batch=larger)), gpu):
            break
        size = larger
    return size
