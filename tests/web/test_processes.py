"""Processes of the page: what runs, what it printed, and that they are found again."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest
from support.waiting import eventually

import tunedeck
from tunedeck.core.errors import ConfigError, StorageError
from tunedeck.web.folder import Folder
from tunedeck.web.processes import Processes


@pytest.fixture(autouse=True)
def _this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(tunedeck.__file__).parents[1]))


def test_a_process_belongs_to_a_name_and_is_found_by_another_page(tmp_path: Path) -> None:
    first, second = Processes(Folder(tmp_path)), Processes(Folder(tmp_path))
    first.start("runs/a b", ["explain", "TD-E002"])
    assert second.is_running("runs/a b")
    with pytest.raises(ConfigError, match="still running"):
        second.start("runs/a b", ["schema"])
    eventually(lambda: not first.is_running("runs/a b"))
    assert not second.is_running("runs/a b")
    assert second.names() == ["runs/a b"]
    assert second.command("runs/a b") == "tunedeck explain TD-E002"
    assert "TD-E002" in second.log("runs/a b")
    assert not (tmp_path / "runs").exists()


def test_a_process_is_stopped_as_by_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nicegui")
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # by which NiceGUI would take it for a test of its own
    processes = Processes(Folder(tmp_path))
    processes.start("waiting", ["ui", "--no-open", "--port", "8931"])
    eventually(_answers)
    processes.stop("waiting")
    eventually(lambda: not processes.is_running("waiting"))


def test_what_cannot_be_recorded_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, values: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("tunedeck.web.processes.write_json", full)
    children = set(psutil.Process().children())
    processes = Processes(Folder(tmp_path))
    with pytest.raises(StorageError, match="the disk is full"):
        processes.start("runs/a", ["schema"])
    assert not processes.is_running("runs/a")
    assert set(psutil.Process().children()) == children


def test_a_name_outside_the_folder_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not in the folder"):
        Processes(Folder(tmp_path)).start("../a", ["schema"])
    assert not list(tmp_path.iterdir())


def _answers() -> bool:
    try:
        urllib.request.urlopen("http://127.0.0.1:8931", timeout=10).close()
    except OSError:
        return False
    return True
