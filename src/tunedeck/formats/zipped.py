"""An adapter folder out of a .zip file that anybody may have made."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder
from tunedeck.formats.folder import detect_format

LARGEST_BYTES = 4 << 30
_ENDINGS = (".json", ".safetensors", ".md")
_PICKLES = ("pytorch_adapter.bin", "pytorch_model_head.bin")
"""AdapterHub's tensors, which are read with `weights_only=True`."""
_MARKS = ("tunedeck.json", "adapter_config.json")
_MOST_FILES, _PIECE = 1000, 1 << 20


def unpack_adapter(file: Path, target: Path, *, largest_bytes: int = LARGEST_BYTES) -> str:
    """Unpack the one adapter folder in a .zip file as the new folder `target`, and return its format.

    Only JSON, safetensors, Markdown and AdapterHub's .bin files directly in that folder are taken, by their last names,
    so that no name leads elsewhere; what they unpack to is counted while it is read. Raises AdapterFileError for a file
    that is not a ZIP file, holds no or several adapters, is too large, or is damaged; for a `target` that exists.
    """
    if target.exists():
        raise AdapterFileError(say("{path} already exists; choose another path", path=target))
    if not zipfile.is_zipfile(file):
        raise AdapterFileError(say("{path} is not a .zip file", path=file.name))
    try:
        with zipfile.ZipFile(file) as pack, replacing_folder(target) as staging:
            left = largest_bytes
            for one in _wanted(pack, file):
                left = _copy(pack, one, staging / PurePosixPath(one.filename).name, left)
            return detect_format(staging)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file.name, reason=error)) from error


def _wanted(pack: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """Return the members of the adapter's folder."""
    members = [one for one in pack.infolist() if not one.is_dir()]
    if len(members) > _MOST_FILES:
        raise AdapterFileError(
            say(
                "{path} holds {count} files; at most {most} are read",
                path=file.name,
                count=len(members),
                most=_MOST_FILES,
            )
        )
    paths = {one.filename: PurePosixPath(one.filename) for one in members}
    folders = {path.parent for path in paths.values() if path.name in _MARKS}
    if len(folders) != 1:
        raise AdapterFileError(
            say("{path} holds {count} adapter folders; pack a single one", path=file.name, count=len(folders))
        )
    (folder,) = folders
    inside = [one for one in members if paths[one.filename].parent == folder]
    return [one for one in inside if paths[one.filename].suffix in _ENDINGS or paths[one.filename].name in _PICKLES]


def _copy(pack: zipfile.ZipFile, one: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Copy a member and return how many bytes are left."""
    with pack.open(one) as source, target.open("xb") as copy:
        while piece := source.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise AdapterFileError(say("{name} is too large when unpacked", name=one.filename))
            copy.write(piece)
    return left
