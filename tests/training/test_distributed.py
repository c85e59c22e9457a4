"""How a step's batches are dealt out among processes and cut into pieces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tunedeck.training.distributed import micro_batches


def shares(batches: list[list[int]], divisible: bool, splits: int, processes: int) -> list[list[tuple[Any, float]]]:
    """What each process gets of batches whose rows all weigh the same."""
    objective: Any = SimpleNamespace(divisible=divisible, weight=len)
    worlds: Any = [SimpleNamespace(num_processes=processes, process_index=index) for index in range(processes)]
    return [micro_batches(objective, batches, splits, world) for world in worlds]


def test_batches_are_dealt_out_evenly_and_every_row_counts_once() -> None:
    assert shares([[1, 2, 3, 4], [5]], True, 1, 2) == [[([1, 3], 0.4), ([5], 0.2)], [([2, 4], 0.4), ([1, 3], 0.0)]]
    assert shares([[1, 2, 3, 4]], True, 2, 1) == [[([1, 3], 0.5), ([2, 4], 0.5)]]


def test_batches_that_must_stay_whole_are_dealt_out_whole() -> None:
    assert shares([[1, 2], [3, 4]], False, 4, 2) == [[([1, 2], 0.5)], [([3, 4], 0.5)]]
