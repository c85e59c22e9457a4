"""How a step's batches are dealt out among processes and cut into pieces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tunedeck.core.run_length import CPU_POSITIONS
from tunedeck.training.distributed import micro_batches


def shares(
    batches: list[list[int]], divisible: bool, splits: int, processes: int, length: int = 1, device: str = "cpu"
) -> list[list[tuple[Any, float]]]:
    """What each process gets of batches whose rows all weigh the same."""
    objective: Any = SimpleNamespace(divisible=divisible, weight=len, lengths=[length] * 6)
    worlds: Any = [
        SimpleNamespace(num_processes=processes, process_index=index, device=torch.device(device))
        for index in range(processes)
    ]
    return [micro_batches(objective, batches, splits, world) for world in worlds]


def test_batches_are_dealt_out_evenly_and_every_row_counts_once() -> None:
    assert shares([[1, 2, 3, 4], [5]], True, 1, 2) == [[([1, 3], 0.4), ([5], 0.2)], [([2, 4], 0.4), ([1, 3], 0.0)]]
    assert shares([[1, 2, 3, 4]], True, 2, 1) == [[([1, 3], 0.5), ([2, 4], 0.5)]]


def test_batches_that_must_stay_whole_are_dealt_out_whole() -> None:
    assert shares([[1, 2], [3, 4]], False, 4, 2) == [[([1, 2], 0.5)], [([3, 4], 0.5)]]


def test_on_a_cpu_long_batches_are_cut_and_other_devices_take_them_whole() -> None:
    batch, half = [[1, 2, 3, 4]], CPU_POSITIONS // 2
    assert shares(batch, True, 1, 1, half // 2) == [[([1, 2, 3, 4], 1.0)]]
    assert shares(batch, True, 1, 1, half) == [[([1, 3], 0.5), ([2, 4], 0.5)]]
    assert shares(batch, True, 1, 2, half) == [[([1, 3], 0.5)], [([2, 4], 0.5)]]  # each process has two rows
    assert len(shares(batch, True, 2, 1, half)[0]) == 4  # halved once more, for it did not fit
    assert len(shares(batch, True, 1, 1, 9 * CPU_POSITIONS)[0]) == 4  # a single row is not cut
    assert shares(batch, True, 1, 1, half, "meta") == [[([1, 2, 3, 4], 1.0)]]
    assert shares(batch, False, 1, 1, half) == [[([1, 2, 3, 4], 1.0)]]
