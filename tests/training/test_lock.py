"""A run folder that another process writes stays as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import tiny_models

from tunedeck.core.errors import TrainingError
from tunedeck.training.config import RunConfig, run_config
from tunedeck.training.lock import LOCK, is_locked, locked
from tunedeck.training.run import run_together


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = (
        "import filelock, sys\n"
        f"with filelock.FileLock({str(folder / LOCK)!r}):\n    print(flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield other
        finally:
            other.communicate()


def config_of(data: Path, seed: int) -> RunConfig:
    return run_config(
        {
            "model": str(tiny_models.folder_of("bert", "classifier")),
            "data": {"train": str(data)},
            "device": "cpu",
            "dtype": "float32",
            "training": {"epochs": 1, "seed": seed},
        }
    )


def begin(config: RunConfig, out: Path) -> None:
    run_together([config], out, tell=lambda text: None, progress=False)


def test_a_run_that_is_under_way_keeps_all_its_files(tmp_path: Path) -> None:
    data, out = tmp_path / "data.csv", tmp_path / "run"
    data.write_text("text,label\n" + "".join(f"w{n} w5,{'ab'[n % 2]}\n" for n in range(4, 24)))
    begin(config_of(data, seed=1), out)
    before = tiny_models.files_of(out)
    with held_by_another_process(out), pytest.raises(TrainingError, match="another process is training the run"):
        begin(config_of(data, seed=2), out)
    assert tiny_models.files_of(out) == before
    begin(config_of(data, seed=2), out)
    assert b"seed: 2" in tiny_models.files_of(out)["config.yaml"]


def test_a_folder_is_locked_while_its_process_lives(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with held_by_another_process(tmp_path) as other:
        assert is_locked(tmp_path)
        other.kill()
        other.wait()
        assert not is_locked(tmp_path)


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as other:
        with pytest.raises(TrainingError, match="another process is training the run"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
        assert (tmp_path / LOCK).exists()
        with locked(tmp_path):
            pass
