"""Files that are whole or not there: written to a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunedeck.core.errors import StorageError
from tunedeck.core.messages import say


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` when the block ends without an error.

    An existing folder stays untouched until then. Raises StorageError when the disk refuses.
    """
    target = Path(target)
    staging: Path | None = None
    with _told_as_storage_error(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
            staging.chmod(0o777 & ~_umask())
            yield staging
            for file in staging.rglob("*"):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # safetensors makes its files readable to their owner alone
                    _flush(file)
            _swap(staging, target)
        except StorageError as error:
            raise StorageError(str(error).replace(str(staging), str(target))) from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which takes the place of `target` when the block ends without an error.

    Raises StorageError when the disk refuses.
    """
    target = Path(target)
    with _told_as_storage_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as staging:
            file = Path(staging) / target.name
            try:
                yield file
            except StorageError as error:
                raise StorageError(str(error).replace(str(file), str(target))) from error
            file.chmod(0o666 & ~_umask())
            _flush(file)
            file.replace(target)


def sweep(folder: Path) -> None:
    """Remove what writes that were killed left half-done in a folder; nothing else may be writing there."""
    for pattern in (".*.part", ".*.old"):
        for left in folder.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all; StorageError when the disk refuses."""
    write_bytes(target, text.encode("utf-8"))


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file whole or not at all; StorageError when the disk refuses."""
    target = Path(target)
    with _told_as_storage_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Write JSON, indented and with its keys in the order given, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    if not target.is_dir() or target.is_symlink():
        raise StorageError(say("{path} exists and is not a folder; choose another place", path=target))
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        target.rename(old / target.name)
        try:
            staging.rename(target)
        except OSError:
            (old / target.name).rename(target)
            raise
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _told_as_storage_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            say(
                "cannot write {path}: {reason}; {hint}. What stood there before is untouched",
                path=target,
                reason=error.strerror or error,
                hint=say("free some space or choose another place")
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else say("check the place and its permissions"),
            )
        ) from error
