"""From the name in a request to a folder under the root, and to nothing else."""

from __future__ import annotations

import os
import re
import time
import unicodedata
from pathlib import Path
from typing import final

from safetensors import safe_open

from tunedeck.core.errors import UnknownAdapterError
from tunedeck.core.messages import say
from tunedeck.formats import peft
from tunedeck.formats.manifest import FILE

_NAME = re.compile(r"[^\W_][\w.\-]*(/[^\W_][\w.\-]*){0,2}")
_LONGEST = 200
_DEPTH = 3
_FRESH_S = 2.0
_FLOAT_BYTES = 4


@final
class Root:
    """The folder whose sub-folders are the adapters; a name is a relative path of up to three plain parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self._names: list[str] = []
        self._listed = float("-inf")

    def names(self) -> list[str]:
        """Every adapter folder, sorted; the disk is read again when the list is older than two seconds."""
        if time.monotonic() - self._listed > _FRESH_S:
            self._names = sorted(name for name in self._walk(self.folder, 1) if self._is_plain(name))
            self._listed = time.monotonic()
        return self._names

    def find(self, name: str) -> Path:
        """The folder of that name, or UnknownAdapterError, which does not say whether something else is there."""
        folder = self.folder / name if self._is_plain(name) else None
        if folder is None or not _is_adapter(folder) or not self._stays_inside(folder):
            raise unknown(name)
        return folder

    def _is_plain(self, name: str) -> bool:
        composed = unicodedata.normalize("NFC", name)
        return len(name) <= _LONGEST and composed == name and _NAME.fullmatch(name) is not None

    def _stays_inside(self, folder: Path) -> bool:
        """Neither the folder nor a file in it is a link that leads out of the root."""
        return all(place.resolve().is_relative_to(self.folder) for place in (folder, *folder.iterdir()))

    def _walk(self, folder: Path, depth: int) -> list[str]:
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.is_dir():
                    continue
                inner = Path(entry.path)
                if _is_adapter(inner):
                    found.append(inner.relative_to(self.folder).as_posix())
                elif depth < _DEPTH and not entry.is_symlink():
                    found += self._walk(inner, depth + 1)
        return found


def unknown(name: str) -> UnknownAdapterError:
    """The error for a name that is not served; the same for every reason, so that nothing can be learnt by guessing."""
    return UnknownAdapterError(say("The model {name!r} does not exist.", name=name[:_LONGEST]))


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file of an adapter: changes when the adapter does."""
    found = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in folder.iterdir() if file.is_file()]
    return tuple(sorted(found))


def bytes_in_memory(folder: Path) -> int:
    """Bytes of an adapter's tensors once loaded, float32, from the headers alone; a pickle's from its size."""
    total = 0
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as tensors:
                shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118 - no mapping
            total += sum(_FLOAT_BYTES * _product(shape) for shape in shapes)
        elif file.suffix == ".bin":
            total += 2 * file.stat().st_size
    return total


def _product(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _is_adapter(folder: Path) -> bool:
    return (folder / peft.CONFIG).is_file() or (folder / FILE).is_file()
