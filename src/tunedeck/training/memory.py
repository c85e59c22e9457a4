"""How much memory is in use, and what to do when it runs out: the same step in smaller pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say

_TEXTS = ("DefaultCPUAllocator: can't allocate", "DefaultCPUAllocator: not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or on the CPU, or Python could not get memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


@contextmanager
def told_as_training_error() -> Iterator[None]:
    """Raise TrainingError when memory runs out where no smaller pieces help."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            say(
                "out of memory where smaller pieces of a batch do not help; shorten what is evaluated, choose an adapter with fewer parameters, or quantize the base"
            )
        ) from error


def used_bytes(device: torch.device) -> int:
    """What training holds now: of the GPU's memory, or of this process's."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def free_cache() -> None:
    """Give back what the GPU's allocator keeps in pieces that no longer fit."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def smaller_pieces(divisible: bool, largest: int, count: int) -> int:
    """Rows of a piece when each batch of up to `largest` rows is cut into twice as many as now; TrainingError when it cannot be."""
    if not divisible:
        raise TrainingError(
            say("out of memory, and this loss needs its batch whole; set task.chunk_size, or lower training.batch_size")
        )
    if count >= largest:
        raise TrainingError(say("out of memory with a single example; lower task.max_length, or quantize the base"))
    return -(-largest // (2 * count))


def said_of_pieces(step: int, rows: int, splits: int) -> str:
    """What to tell of it."""
    return say(
        "out of memory at step {step}: batches are worked through in pieces of {rows} from here on, {splits} to a batch; the steps stay the same",
        step=step,
        rows=rows,
        splits=splits,
    )
