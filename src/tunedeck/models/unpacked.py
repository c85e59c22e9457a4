"""A GGUF file's model, unpacked once and kept in the cache as a folder whose weights are mapped from then on.

Unpacking takes seconds for each hundred megabytes; opening the folder takes a tenth of a second.
"""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from tunedeck.core.bundle import cache_folder
from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import say
from tunedeck.core.storage import file_sha256, replacing_folder, write_json
from tunedeck.core.system_reason import system_reason
from tunedeck.models.source import ModelSource

RECEIPT = "unpacked.json"


def unpacked(source: ModelSource, auto_class: str, dtype: torch.dtype) -> ModelSource:
    """Return the folder that holds a GGUF file's model in this precision; `source` itself where it is no GGUF file.

    The folder is written first where it is missing, incomplete, or of another file or version of transformers; of
    several processes one writes it and the others wait. Where the disk refuses, a warning says so and `source` is
    returned.
    """
    if source.gguf_file is None:
        return source
    file = (Path(source.location) / source.gguf_file).resolve()
    folder = unpacked_folder(file, auto_class, dtype)
    try:
        if not _is_whole(folder, file):
            with _locked(folder):
                if not _is_whole(folder, file):
                    _unpack(file, folder, auto_class, dtype)
    except StorageError as error:
        warnings.warn(say("the unpacked model is not kept: {reason}", reason=error), stacklevel=2)
        return source
    return replace(source, location=str(folder), gguf_file=None)


def all_unpacked() -> Path:
    """Return the part of the cache that holds the unpacked models; what is deleted there is unpacked anew."""
    return cache_folder() / "gguf"


def unpacked_folder(file: Path, auto_class: str, dtype: torch.dtype) -> Path:
    """Return the folder in the cache for a GGUF file's model."""
    place = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    return all_unpacked() / f"{file.stem}-{place}-{auto_class}-{str(dtype).removeprefix('torch.')}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise StorageError(say("cannot write {path}: {reason}", path=folder, reason=system_reason(error))) from error
    try:
        yield
    finally:
        lock.release()


def _is_whole(folder: Path, file: Path) -> bool:
    """Tell whether a folder holds this very file's model: its hash is computed only if its size or time has changed."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        if receipt["transformers"] != transformers.__version__:
            return False
        if any(_stamp(folder / name) != stamp for name, stamp in receipt["files"].items()):
            return False
        return bool(receipt["stamp"] == _stamp(file) or receipt["sha256"] == file_sha256(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _unpack(file: Path, folder: Path, auto_class: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"gguf_file": file.name}
    place, stamp, digest = str(file.parent), _stamp(file), file_sha256(file)
    config = transformers.AutoConfig.from_pretrained(place, **options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
    model, report = getattr(transformers, auto_class).from_pretrained(
        place, dtype=dtype, output_loading_info=True, **options
    )
    with replacing_folder(folder) as staging:
        config.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        try:
            save_file(_stored(model, report["missing_keys"]), staging / "model.safetensors", {"format": "pt"})
        except SafetensorError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
        stamps = {one.name: _stamp(one) for one in staging.iterdir()}
        write_json(
            staging / RECEIPT,
            {"sha256": digest, "stamp": stamp, "transformers": transformers.__version__, "files": stamps},
        )


def _stored(model: Any, missing: set[str]) -> dict[str, torch.Tensor]:
    """Return the tensors that the file brings, tied ones once."""
    found: dict[tuple[int, torch.Size], tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        if name not in missing:
            found.setdefault((tensor.data_ptr(), tensor.shape), (name, tensor.contiguous()))
    return dict(found.values())


def _stamp(file: Path) -> list[int]:
    """Return a file's size and the second in which it was last written."""
    found = file.stat()
    return [found.st_size, int(found.st_mtime)]
