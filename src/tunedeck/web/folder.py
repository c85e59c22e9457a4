"""The folder of `tunedeck ui`: names that a browser sends never become paths outside it."""

from __future__ import annotations

import re
import shutil
import time
import unicodedata
from pathlib import Path
from typing import final

from tunedeck.core.errors import ConfigError, StorageError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_bytes
from tunedeck.core.system_reason import system_reason

DATA, BIN = "data", ".bin"
"""Where uploaded files are saved, and where deleted folders go."""
_LONGEST, _LONGEST_PART = 100, 255
"""Characters of a new name, and bytes of one that file systems take."""
_NOT_IN_NAMES = frozenset('<>:"|?*/\\')


def safe_name(name: str, default: str = "data") -> str:
    """Return a name for a file or folder: the last part of `name` without what file systems and shells dislike."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join(one for one in last if one.isprintable() and one not in _NOT_IN_NAMES).strip().lstrip(".-").strip()
    stem, dot, ending = kept.rpartition(".")
    if dot and len(ending) <= 10:
        return (stem[: _LONGEST - len(ending) - 1].strip() or default) + "." + ending
    return kept[:_LONGEST].strip() or default


@final
class Folder:
    """A folder with adapters, runs and data; every path of the page is below it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, name: str) -> Path:
        """Return the path of a name below the folder; ConfigError for a name that leads elsewhere, hidden ones too."""
        parts = re.split(r"[/\\]", name)
        path = self.root.joinpath(*parts) if all(map(_usable, parts)) else self.root
        if path == self.root or not path.resolve().is_relative_to(self.root):
            raise ConfigError(say("{name!r} is not in the folder {path}", name=name, path=self.root))
        return path

    def existing(self, name: str) -> Path:
        """Return the path of something that is there; ConfigError where it is not."""
        path = self.path(name)
        if not path.exists():
            raise ConfigError(say("{name!r} is not in the folder {path}", name=name, path=self.root))
        return path

    def name(self, path: Path) -> str:
        """Return a path's name in the folder, with slashes."""
        return path.relative_to(self.root).as_posix()

    def free_name(self, group: str, wanted: str) -> str:
        """Return `group/wanted`, with a number before its ending where that is taken."""
        name = safe_name(wanted)
        path = self.root / group / name
        for number in range(2, 10_000):
            if not path.exists():
                break
            path = self.root / group / f"{Path(name).stem}-{number}{Path(name).suffix}"
        return self.name(path)

    def save(self, name: str, content: bytes) -> str:
        """Write an uploaded file below data/, never over another, and return its name; StorageError if disk refuses."""
        saved = self.free_name(DATA, name)
        write_bytes(self.root / saved, content)
        return saved

    def rename(self, name: str, new: str) -> str:
        """Give a folder another name beside the old one; ConfigError for a name that is taken or cannot be one."""
        old, kept = self.existing(name), safe_name(new, default="")
        if not kept or kept != new.strip():
            raise ConfigError(say("{name!r} cannot be a name here; use letters, digits, - and _", name=new))
        target = old.with_name(kept)
        if target.exists():
            raise ConfigError(say("{name!r} exists already; choose another name", name=new))
        _move(old, target)
        return self.name(target)

    def delete(self, name: str) -> None:
        """Move something to the bin, a hidden folder with a folder for each deletion, named by its time."""
        _move(self.existing(name), self.root / BIN / str(time.time_ns()) / name)

    def deletions(self) -> list[Path]:
        """Return the bin's folders, the latest deletion first."""
        try:
            found = [path for path in (self.root / BIN).iterdir() if path.name.isdecimal()]
        except OSError:
            return []
        return sorted(found, key=lambda path: -int(path.name))

    def restore(self, deletion: Path, name: str) -> None:
        """Move something back to where it was; ConfigError where something else has its name now."""
        target = self.path(name)
        if target.exists():
            raise ConfigError(say("{name!r} exists already; rename it first", name=name))
        _move(deletion / name, target)
        shutil.rmtree(deletion, ignore_errors=True)


def _usable(part: str) -> bool:
    return bool(part) and part[0] != "." and part.isprintable() and len(part.encode()) <= _LONGEST_PART


def _move(old: Path, new: Path) -> None:
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    except OSError as error:
        raise StorageError(say("cannot write {path}: {reason}", path=new, reason=system_reason(error))) from error
