"""From the name in a request to a folder under the root, and to nothing else."""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

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
_NOTHING: Mapping[Hashable, int] = {}


@final
@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of an adapter once loaded: its own, and of each thing it shares with others, which are there once."""

    own: int
    shared: Mapping[Hashable, int] = field(default_factory=lambda: _NOTHING)


class Form(Protocol):
    """How adapters lie on disk. An adapter's place is the root's folder with its name behind it."""

    def adapters_in(self, folder: Path) -> list[Path]:
        """The places of the adapter or adapters that a folder is; none where adapters may lie further down."""
        ...

    def files(self, place: Path) -> list[Path]:
        """The folders and files that an adapter is made of; none when there is no such adapter."""
        ...

    def memory(self, place: Path) -> Memory:
        """What the adapter will take in memory; TunedeckError when it cannot be loaded."""
        ...


@final
class DeckFolders:
    """A folder for each adapter, as PEFT, AdapterHub and `deck.save` write them."""

    def adapters_in(self, folder: Path) -> list[Path]:
        """The folder itself, if it is an adapter."""
        return [folder] if (folder / peft.CONFIG).is_file() or (folder / FILE).is_file() else []

    def files(self, place: Path) -> list[Path]:
        """The folder and what lies in it."""
        return [place, *place.iterdir()] if self.adapters_in(place) else []

    def memory(self, place: Path) -> Memory:
        """That of its tensors."""
        return Memory(bytes_in_memory(place))


@final
class Root:
    """The folder under which the adapters lie; a name is a relative path of up to three plain parts."""

    def __init__(self, folder: Path, form: Form | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        self.form: Form = form or DeckFolders()
        self._names: list[str] = []
        self._listed = float("-inf")

    def names(self) -> list[str]:
        """Every adapter, sorted; the disk is read again when the list is older than two seconds."""
        if time.monotonic() - self._listed > _FRESH_S:
            found = [*self.form.adapters_in(self.folder), *self._walk(self.folder, 1)]
            names = (place.relative_to(self.folder).as_posix() for place in found)
            self._names = sorted(name for name in names if self._is_plain(name))
            self._listed = time.monotonic()
        return self._names

    def find(self, name: str) -> Path:
        """The place of that name, or UnknownAdapterError, which does not say whether something else is there."""
        place = self.folder / name
        files = self.form.files(place) if self._is_plain(name) else []
        if not files or not all(file.resolve().is_relative_to(self.folder) for file in files):  # links that lead out
            raise unknown(name)
        return place

    def signature(self, place: Path) -> tuple[tuple[str, int, int], ...]:
        """Name, time and size of every file and folder of an adapter: changes when the adapter does, even where a file came and went."""
        found = [(file.name, file.stat()) for file in self.form.files(place)]
        return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in found))

    def _is_plain(self, name: str) -> bool:
        composed = unicodedata.normalize("NFC", name)
        return len(name) <= _LONGEST and composed == name and _NAME.fullmatch(name) is not None

    def _walk(self, folder: Path, depth: int) -> list[Path]:
        found: list[Path] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.is_dir():
                    continue
                inner = Path(entry.path)
                if own := self.form.adapters_in(inner):
                    found += own
                elif depth < _DEPTH and not entry.is_symlink():
                    found += self._walk(inner, depth + 1)
        return found


def unknown(name: str) -> UnknownAdapterError:
    """The error for a name that is not served; the same for every reason, so that nothing can be learnt by guessing."""
    return UnknownAdapterError(say("The model {name!r} does not exist.", name=name[:_LONGEST]))


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
