"""The threads that help a computing thread end and come again."""

from __future__ import annotations

import platform
import threading

import psutil
import pytest
import torch

from tunedeck.core.helper_threads import end_helper_threads


@pytest.mark.skipif(platform.system() != "Linux", reason="needs GNU OpenMP")
def test_helper_threads_end_and_come_again() -> None:
    counts, process, threads = [], psutil.Process(), torch.get_num_threads()

    def compute() -> None:
        for _ in range(2):
            counts.append(process.num_threads())
            torch.ones(1_000_000).sin()
            counts.append(process.num_threads())
            end_helper_threads()
        counts.append(process.num_threads())

    torch.set_num_threads(3)
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    torch.set_num_threads(threads)
    before, helped = counts[0], counts[0] + 2
    assert counts == [before, helped, before, helped, before]
