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

FAULTS = """
import resource, torch
from tunedeck.core.native import give_back_freed_memory, keep_freed_memory

def faults_of_a_batch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batch = [torch.ones(2_000_000) for _ in range(10)]
    del batch
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_a_batch()
first = faults_of_a_batch()
keep_freed_memory()
faults_of_a_batch()
kept = faults_of_a_batch()
give_back_freed_memory()
print(first, kept, faults_of_a_batch())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_batch_finds_the_memory_of_the_one_before_until_that_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    at_first, kept, given_back = map(int, said.split())  # pages that the system had to hand out for a batch
    assert kept * 4 < min(at_first, given_back)  # one of the ten blocks may be new


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
