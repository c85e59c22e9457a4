"""Names that a browser sends: what becomes of them, and that none leads outside the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.errors import ConfigError
from tunedeck.web.folder import Folder, safe_name


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("reviews.csv", "reviews.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\评论 2.xlsx", "评论 2.xlsx"),
        (".bashrc", "bashrc"),
        ("--out.csv", "out.csv"),
        ("a\0b\n\u202e.csv", "ab.csv"),
        ('it\'s "quoted" <b>.csv', "it's quoted b.csv"),
        ("...", "data"),
        ("x" * 300 + ".csv", "x" * 96 + ".csv"),
    ],
)
def test_a_name_of_an_upload_becomes_a_plain_file_name(given: str, kept: str) -> None:
    assert safe_name(given) == kept


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/passwd", "", ".", "a//b", ".ui/x", "a/.hidden", "..\\x", "a\0", "x" * 300, "\ud800"],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not in the folder"):
        Folder(tmp_path).path(name)


def test_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (root := tmp_path / "root").mkdir()
    (tmp_path / "secret.csv").write_text("x")
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ConfigError, match="is not in the folder"):
        Folder(root).existing("link.csv")


def test_an_upload_never_replaces_a_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert [folder.save("a.csv", one) for one in (b"1", b"2")] == ["data/a.csv", "data/a-2.csv"]
    assert (tmp_path / "data/a.csv").read_bytes() == b"1"


def test_a_folder_is_renamed_beside_itself_and_never_onto_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/two").mkdir()
    assert folder.rename("runs/one", "three") == "runs/three"
    for new in ("two", "../x", "a/b", ".x", ""):
        with pytest.raises(ConfigError):
            folder.rename("runs/three", new)
    assert sorted(one.name for one in (tmp_path / "runs").iterdir()) == ["three", "two"]


def test_what_is_deleted_lies_in_the_bin_until_it_is_restored(tmp_path: Path) -> None:
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/kept.txt").write_text("kept")
    folder = Folder(tmp_path)
    assert folder.deletions() == []
    folder.delete("runs/one")
    assert not (tmp_path / "runs/one").exists()
    (deletion,) = folder.deletions()
    assert deletion.parent == tmp_path / ".bin"
    (tmp_path / "runs/one").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        folder.restore(deletion, "runs/one")
    (tmp_path / "runs/one").rmdir()
    folder.restore(deletion, "runs/one")
    assert (tmp_path / "runs/one/kept.txt").read_text() == "kept"
    assert folder.deletions() == []
