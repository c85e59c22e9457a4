"""glibc's heap: memory that stays for the next batch."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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


def test_an_engine_does_not_load_what_changes_the_process() -> None:
    code = "import sys, tunedeck.serving.factory; print('tunedeck.core.native' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
