"""Files and folders are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models

from tunedeck.core import storage
from tunedeck.core.errors import StorageError
from tunedeck.core.storage import replacing_folder, sweep, write_json, write_text


def fill(folder: Path, text: str) -> None:
    with replacing_folder(folder) as staging:
        (staging / "a").write_text(text, encoding="utf-8")


def test_a_folder_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    fill(tmp_path / "x", "one")
    (tmp_path / "x" / "b").write_text("old")
    fill(tmp_path / "x", "two")
    assert tiny_models.files_of(tmp_path) == {"x/a": b"two"}


def test_an_error_in_the_block_keeps_the_old_folder(tmp_path: Path) -> None:
    fill(tmp_path / "x", "one")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "x") as staging:
        (staging / "a").write_text(str(1 / 0))
    assert tiny_models.files_of(tmp_path) == {"x/a": b"one"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("failing", ["rename of the old", "rename of the new"])
def test_a_rename_that_fails_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    fill(tmp_path / "x", "one")
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if (self.name == "x") == (failing == "rename of the old") and ".old" not in str(self.parent):
            raise OSError(5, "broken")
        return original(self, target)

    monkeypatch.setattr(storage, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="broken"):
        fill(tmp_path / "x", "two")
    assert tiny_models.files_of(tmp_path) == {"x/a": b"one"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_inside_the_block_is_told_with_the_users_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError) as error, replacing_folder(tmp_path / "x") as staging:
        write_json(staging / "config.json", {})
    assert str(tmp_path / "x" / "config.json") in str(error.value)
    assert "free some space" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_text_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "t", "one")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(StorageError):
        write_text(tmp_path / "t", "two")
    assert tiny_models.files_of(tmp_path) == {"t": b"one"}


def test_files_of_a_new_folder_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "x") as staging:
        (staging / "a").write_text("a")
        (staging / "a").chmod(0o600)  # as safetensors leaves its files
    write_text(tmp_path / "b", "b")
    assert (tmp_path / "x" / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_killed_writes_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".step.x1.part").mkdir()
    (tmp_path / ".step.x1.part" / "file").touch()
    (tmp_path / ".metrics.json.x2.part").touch()
    (tmp_path / ".adapter.x3.old").mkdir()
    (tmp_path / "kept.part").touch()
    (tmp_path / "adapter").mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "kept.part"]
