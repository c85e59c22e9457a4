"""What `tunedeck serve` sets for its process, and that an engine by itself sets none of it."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import threading

import psutil
import pytest
import torch

from tunedeck.server.process import WithoutHelperThreads, settle_process
from tunedeck.serving.factory import Silent


@pytest.mark.skipif(platform.system() != "Linux", reason="needs GNU OpenMP")
def test_the_loaders_helper_threads_end_after_each_load_before_its_event_is_counted() -> None:
    process, threads = psutil.Process(), torch.get_num_threads()
    counts: list[int] = []
    counted = Silent()
    counted.on_store_event = lambda *_: counts.append(process.num_threads())  # type: ignore[method-assign]
    listener = WithoutHelperThreads(counted)

    def load() -> None:
        torch.ones(1_000_000).sin()
        counts.append(process.num_threads())
        listener.on_store_event("load", "law")

    torch.set_num_threads(3)
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    torch.set_num_threads(threads)
    helped, after = counts
    assert helped - after == 2


def test_what_is_loaded_before_the_first_request_is_left_out_of_garbage_collection() -> None:
    gc.unfreeze()
    settle_process()
    assert gc.get_freeze_count() > 1000  # and stays: the other tests are faster for it


def test_an_engine_does_not_load_what_changes_the_process() -> None:
    code = "import sys, tunedeck.serving.factory; print('tunedeck.core.native' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
