"""What a folder of adapters is for: the task and the base that its first adapter names."""

from __future__ import annotations

from pathlib import Path

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.deck.task import Task
from tunedeck.formats.folder import base_of
from tunedeck.formats.manifest import Manifest, read_manifest
from tunedeck.serving.names import Root
from tunedeck.tasks.registry import task_of


def task_and_base(adapters: Path, kind: str | None, reference: str | None) -> tuple[Task, str, str | None]:
    """(task, base, how it was packed); what is given counts, else the first adapter's. ConfigError when neither says."""
    root = Root(adapters)
    if not root.folder.is_dir():
        raise ConfigError(say("there is no folder {path}; name the one that holds the adapter folders", path=adapters))
    names = root.names()
    manifest, first_base = None, None
    for name in names:
        manifest, first_base = _told(root.folder / name)
        if manifest is not None or first_base is not None:
            break
    reference = reference or first_base
    if not reference:
        raise ConfigError(
            say("no adapter in {path} says which base it belongs to; name it with --model", path=adapters)
        )
    if kind is not None:
        return task_of({"kind": kind}), reference, None
    if manifest is None:
        raise ConfigError(say("no adapter in {path} says what it is for; name the task with --task", path=adapters))
    described = {key: value for key, value in manifest.task.items() if key != "labels"}
    return task_of(described), reference, manifest.base.quantize


def _told(folder: Path) -> tuple[Manifest | None, str | None]:
    """What one folder says; nothing for a damaged one, which is told apart when it is asked for."""
    try:
        return read_manifest(folder), base_of(folder)
    except Exception:
        return None, None
