"""The C libraries below torch: memory that stays for the next batch, helper threads that end."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading

import psutil
import pytest
import torch

from tunedeck.core.native import end_helper_threads

MEMORY = """
import psutil, torch
from tunedeck.core.native import give_back_freed_memory, keep_freed_memory

def left_by_a_batch():
    before = psutil.Process().memory_info().rss
    batch = [torch.ones(2_000_000) for _ in range(10)]
    del batch
    return psutil.Process().memory_info().rss - before

print(left_by_a_batch())
keep_freed_memory()
print(left_by_a_batch())
before = psutil.Process().memory_info().rss
give_back_freed_memory()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_stays_until_it_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    left_at_first, kept, given_back = (int(line) / 8e7 for line in said.split())
    assert left_at_first < 0.5
    assert kept > 0.5
    assert given_back > 0.5


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
