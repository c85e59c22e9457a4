"""A process may be killed at any step of a write: what stood there, or the new, stands there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import tiny_models

from tunedeck.core import storage
from tunedeck.core.errors import StorageError
from tunedeck.core.storage import replacing_file, replacing_folder, write_text

PROGRAM = """
import os, sys
from pathlib import Path
from tunedeck.core import storage

target, where = Path(sys.argv[1]), sys.argv[2]
plain, calls = Path.rename, []

def rename(self, to):
    calls.append(to)
    if where == f"at rename {len(calls)}":
        os._exit(9)
    return plain(self, to)

def exchange(one, other, plain=getattr(storage, "_exchange", None)):
    done = plain(one, other)
    if where == "after the exchange":
        os._exit(9)
    return done

Path.rename, storage._exchange = rename, exchange
with storage.replacing_folder(target) as staging:
    (staging / "a").write_text("new")
"""


def fill(folder: Path, text: str) -> None:
    with replacing_folder(folder) as staging:
        (staging / "a").write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="two renames elsewhere")
@pytest.mark.parametrize(("where", "content"), [("at rename 2", "new"), ("after the exchange", "new")])
def test_a_folder_is_never_without_its_name(tmp_path: Path, where: str, content: str) -> None:
    fill(tmp_path / "x", "old")
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "x"), where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (tmp_path / "x" / "a").read_text() == content


def test_an_exchange_that_the_disk_refuses_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> bool:
        raise OSError(5, "broken")

    fill(tmp_path / "x", "old")
    monkeypatch.setattr(storage, "_exchange", refused)
    with pytest.raises(StorageError, match="broken"):
        fill(tmp_path / "x", "new")
    assert tiny_models.files_of(tmp_path) == {"x/a": b"old"}


def test_what_killed_writes_left_goes_at_the_next_write_to_the_same_place_a_day_later(tmp_path: Path) -> None:
    fill(tmp_path / "x", "one")
    for name in (".x.1.part", ".x.2.old", ".x.fresh.part", ".y.3.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".t.4.part").touch()
    for name in (".x.1.part", ".x.2.old", ".y.3.part", ".t.4.part"):
        os.utime(tmp_path / name, (time.time() - 90_000, time.time() - 90_000))
    fill(tmp_path / "x", "two")
    write_text(tmp_path / "t", "t")
    with replacing_file(tmp_path / "z") as file:
        file.write_text("z")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.fresh.part", ".y.3.part", "t", "x", "z"]


def test_an_old_folder_whose_name_is_gone_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".x.2.old" / "x").mkdir(parents=True)
    os.utime(tmp_path / ".x.2.old", (0, 0))
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "x"):
        raise ZeroDivisionError
    assert (tmp_path / ".x.2.old" / "x").is_dir()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_umask_of_the_other_threads_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("set for all threads"))
    write_text(tmp_path / "t", "t")
    assert (tmp_path / "t").stat().st_mode & 0o777 & ~0o666 == 0
