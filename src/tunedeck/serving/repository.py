"""The adapter repository: from the name in a request to a folder under the root, and to nothing else."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import stat
import time
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

from tunedeck.core.errors import AdapterFileError, UnavailableError, UnknownAdapterError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason
from tunedeck.formats.files import not_regular
from tunedeck.formats.manifest import FILE
from tunedeck.formats.peft import folder as peft
from tunedeck.formats.tensors import safetensors_shapes, torch_bytes

_NAME = re.compile(r"[^\W_][\w.\-]*(/[^\W_][\w.\-]*){0,2}")
_LONGEST = 200
_DEPTH = 3
_FRESH_S = 2.0
_FLOAT_BYTES = 4
_NO_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EINVAL}
"""Error numbers of the system that mean a missing folder; all others are failures of the disk."""
_NOTHING: Mapping[Hashable, int] = {}


@final
@dataclass(frozen=True, slots=True)
class AdapterMemory:
    """Bytes of an adapter in memory: its own, and those of each part that it shares with other adapters."""

    own: int
    shared: Mapping[Hashable, int] = field(default_factory=lambda: _NOTHING)


class RepositoryLayout(Protocol):
    """How adapters are stored on disk. An adapter's place is the root folder with its name appended."""

    def adapters_in(self, folder: Path) -> list[Path]:
        """Return the places of the adapters that a folder is; none where adapters may be in its subfolders."""
        ...

    def files(self, place: Path) -> list[Path]:
        """Return the folders and files of an adapter; none when there is no such adapter."""
        ...

    def memory(self, place: Path) -> AdapterMemory:
        """Return what the adapter will take in memory; TunedeckError when it cannot be loaded."""
        ...


@final
class AdapterFolders:
    """A folder for each adapter, as PEFT, AdapterHub and `deck.save` write them."""

    def adapters_in(self, folder: Path) -> list[Path]:
        """Return the folder itself, if it is an adapter."""
        return [folder] if (folder / peft.CONFIG).is_file() or (folder / FILE).is_file() else []

    def files(self, place: Path) -> list[Path]:
        """Return the folder and its content."""
        return [place, *place.iterdir()] if self.adapters_in(place) else []

    def memory(self, place: Path) -> AdapterMemory:
        """Return that of its tensors."""
        return AdapterMemory(bytes_in_memory(place))


@final
class AdapterRepository:
    """A root folder with adapters; a name is a relative path of up to three plain parts."""

    def __init__(self, folder: Path, layout: RepositoryLayout | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        self.layout: RepositoryLayout = layout or AdapterFolders()
        self._names: list[str] = []
        self._listed = float("-inf")
        self._skipped: set[Path] = set()

    def names(self) -> list[str]:
        """Return every adapter, sorted; the disk is read again when the list is older than two seconds."""
        if time.monotonic() - self._listed > _FRESH_S:
            found = [*self.layout.adapters_in(self.folder), *self._walk(self.folder, 1)]
            names = (place.relative_to(self.folder).as_posix() for place in found)
            self._names = sorted(name for name in names if self._is_plain(name))
            self._listed = time.monotonic()
        return self._names

    def find(self, name: str) -> Path:
        """Return the place of a name; UnknownAdapterError, which does not reveal whether something else is there."""
        place = self.folder / name
        try:
            files = self.layout.files(place) if self._is_plain(name) else []
        except OSError as error:
            if error.errno in _NO_FOLDER:
                raise unknown(name) from None
            raise UnavailableError(
                say("adapter {name!r} cannot be read: {reason}", name=name, reason=system_reason(error))
            ) from error
        if not files or not _within(files):
            raise unknown(name)
        for file in files:
            self._check_kind(file)
        return place

    def signature(self, place: Path) -> tuple[tuple[str | int, ...], ...]:
        """Return name, times, size and inode of every file and folder: it changes whenever the adapter does."""
        found = [(file.name, file.stat()) for file in self.layout.files(place)]
        return tuple(sorted((name, s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino) for name, s in found))

    def _check_kind(self, file: Path) -> None:
        """Raise AdapterFileError for what is neither a file nor a folder, and for a link that leads nowhere."""
        shown = file.relative_to(self.folder)
        try:
            mode = file.stat().st_mode
        except OSError as error:
            raise AdapterFileError(
                say("cannot read {path}: {reason}", path=shown, reason=system_reason(error))
            ) from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise AdapterFileError(not_regular(shown))

    def _is_plain(self, name: str) -> bool:
        composed = unicodedata.normalize("NFC", name)
        return len(name) <= _LONGEST and composed == name and _NAME.fullmatch(name) is not None

    def _walk(self, folder: Path, depth: int) -> list[Path]:
        found: list[Path] = []
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entry.path for entry in entries if _is_plain_folder(entry))
        except OSError as error:
            self._skip(folder, error)
            return found
        for inner in map(Path, inside):
            try:
                adapters = self.layout.adapters_in(inner)
            except OSError as error:
                self._skip(inner, error)
                continue
            found += adapters or (self._walk(inner, depth + 1) if depth < _DEPTH else [])
        return found

    def _skip(self, folder: Path, error: OSError) -> None:
        """Log once that a folder cannot be read: `lost+found` on a volume, for example."""
        if folder not in self._skipped:
            self._skipped.add(folder)
            logging.getLogger("tunedeck.server").warning(
                say("{path} is left out: {reason}", path=folder, reason=system_reason(error))
            )


def _is_plain_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder may be or hold adapters: not if hidden or a link, which would be a second name."""
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def _within(files: Sequence[Path]) -> bool:
    """Tell whether an adapter's folder, which comes first, is not a link, and none of its files leads out of it."""
    home = str(files[0])
    real = [os.path.realpath(file) for file in files]
    return real[0] == home and all(path == home or path.startswith(home + os.sep) for path in real)


def unknown(name: str) -> UnknownAdapterError:
    """Return the error for a name that is not served; the same for every reason, so guessing reveals nothing."""
    return UnknownAdapterError(say("The model {name!r} does not exist.", name=name[:_LONGEST]))


def bytes_in_memory(folder: Path) -> int:
    """Return the bytes of an adapter's tensors once loaded, float32, from the headers alone."""
    total = 0
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            total += sum(_FLOAT_BYTES * math.prod(shape) for shape in safetensors_shapes(file).values())
        elif file.suffix == ".bin":
            total += 2 * torch_bytes(file)  # it may hold 16-bit numbers
    return total
