"""Files that are whole or not there: written to a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason

_HERE, _RENAME_EXCHANGE = -100, 2
"""AT_FDCWD and the flag of renameat2(2)."""
_LEFT_S = 24 * 3600


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` when the block ends without an error.

    An existing folder stays untouched until then. Raises StorageError when the disk refuses.
    """
    target = Path(target)
    staging: Path | None = None
    with _as_storage_error(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep_target(target)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
            staging.chmod(0o777 & ~_umask())
            yield staging
            for file in staging.rglob("*"):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # safetensors makes its files readable to their owner alone
                    _flush(file)
                elif file.is_dir():
                    _flush_folder(file)
            _flush_folder(staging)
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
    with _as_storage_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_target(target)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as staging:
            file = Path(staging) / target.name
            try:
                yield file
            except StorageError as error:
                raise StorageError(str(error).replace(str(file), str(target))) from error
            file.chmod(0o666 & ~_umask())
            _flush(file)
            file.replace(target)
            _flush_folder(target.parent)


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
    with _as_storage_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_target(target)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
            _flush_folder(target.parent)
        finally:
            Path(name).unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Write JSON, indented and with its keys in the order given, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _swap(staging: Path, target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise StorageError(say("{path} exists and is not a folder; choose another place", path=target))
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        _rename_twice(staging, target)
    _flush_folder(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, so that none of the names is ever without one; False where that is not
    to be had.
    """
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):  # an old kernel, a file system that cannot
        return False
    raise OSError(number, os.strerror(number), str(other))


def _rename_twice(staging: Path, target: Path) -> None:
    """Replace a folder in two steps; a process that is killed between them leaves the old one under a hidden name."""
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


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can say so; by now the write has succeeded."""
    if sys.platform != "win32":
        with suppress(OSError):
            _flush(folder)


def _sweep_target(target: Path) -> None:
    """Remove what writes to the same place that were killed left a day ago or longer; an old folder only where there is
    a new one.
    """
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            ours = entry.name.startswith(f".{target.name}.") and entry.name.endswith((".part", ".old"))
            if not ours or time.time() - entry.stat(follow_symlinks=False).st_mtime < _LEFT_S:
                continue
            if entry.is_dir(follow_symlinks=False):
                if target.exists() or entry.name.endswith(".part"):
                    shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask. Asking os.umask for it sets it, for a moment and for all threads, so that is the last
    resort.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _as_storage_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            say(
                "cannot write {path}: {reason}; {hint}. The previous content is unchanged",
                path=target,
                reason=system_reason(error),
                hint=say("free some space or choose another place")
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else say("check the place and its permissions"),
            )
        ) from error
