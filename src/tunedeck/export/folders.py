"""An adapter folder rewritten in another library's form, read back before it counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder
from tunedeck.deck.reading import model_names
from tunedeck.export.standalone import OpenedAdapter, open_adapter
from tunedeck.formats.folder import check_format, read_adapter, write_adapter
from tunedeck.formats.low_rank import low_rank
from tunedeck.formats.tensors import StoredAdapter


def convert_adapter(
    folder: Path, target: Path, to: str | None = None, *, model: str | None = None, trust_remote_code: bool = False
) -> str:
    """Write the adapter in `folder` as `to` ("peft", "adapterhub", "tunedeck"; its kind's own by default) into
    `target`.

    Of the base only the config is read. What was written is read back: every tensor the same to the last bit. Returns
    the format. Raises UnsupportedKindError where `to` cannot hold it, StorageError when `target` exists.
    """
    if target.exists():
        raise StorageError(say("{path} already exists; choose another path", path=target))
    opened = open_adapter(folder, model, trust_remote_code=trust_remote_code)
    config = opened.stored.config
    form = to or config.stored_as
    check_format(config, form)
    with replacing_folder(target) as staging:
        write_verified(opened, staging, form, name_of(target))
    return form


def write_verified(opened: OpenedAdapter, folder: Path, form: str, name: str) -> None:
    """Write an opened adapter into an empty folder and read it back; StorageError where it is not the same."""
    names = model_names(opened.base)
    write_adapter(folder, opened.stored, names, name, opened.task.peft_task, to=form)
    again = read_adapter(folder, names)
    for what, mine, theirs in (
        (say("adapter"), opened.stored.tensors, again.tensors),
        (say("head"), opened.stored.head, again.head),
    ):
        if not _same(mine, theirs):
            raise StorageError(say("{path} read back has another {what} than was written", path=folder, what=what))
    if not _same_scales(opened.stored, again):
        raise StorageError(say("{path} read back has another {what} than was written", path=folder, what=say("scale")))


def name_of(folder: Path) -> str:
    """Return the name an adapter has inside a folder; a point would end a module's name there."""
    return folder.resolve().name.replace(".", "-")


def _same(mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def _same_scales(mine: StoredAdapter, theirs: StoredAdapter) -> bool:
    ours, read = low_rank(mine.config), low_rank(theirs.config)
    if ours is None or read is None:
        return mine.config.kind == theirs.config.kind
    paths = {name.rpartition(".")[0] for name in mine.tensors}
    return all(abs(ours.scaling(path) - read.scaling(path)) <= 1e-12 * ours.scaling(path) for path in paths)
