"""What a folder of adapters is for: the task and the base that its adapters agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.deck.task import Task
from tunedeck.formats.folder import base_of
from tunedeck.formats.manifest import Manifest, read_manifest
from tunedeck.serving.repository import Root
from tunedeck.tasks.registry import task_of


@dataclass(frozen=True, slots=True)
class _Said:
    """What one folder says of itself; nothing where it is damaged, which is told when it is asked for."""

    name: str
    manifest: Manifest | None
    base: str | None

    @property
    def kind(self) -> str | None:
        return None if self.manifest is None else str(self.manifest.task.get("kind"))


def task_and_base(adapters: Path, kind: str | None, reference: str | None) -> tuple[Task, str, str | None]:
    """(task, base, how it was packed); what is given counts, else what the adapters agree on.

    Raises ConfigError where they disagree, so that one stray folder never decides what is loaded, and where none of them says.
    """
    root = Root(adapters)
    if not root.folder.is_dir():
        raise ConfigError(say("there is no folder {path}; name the one that holds the adapter folders", path=adapters))
    said = [_said(name, root.folder / name) for name in root.names()]
    if kind is not None:
        said = [one for one in said if one.kind in (None, kind)]
    if reference is None:
        reference = _base(adapters, said)
    said = [one for one in said if one.base == reference] or said
    if kind is not None:
        return task_of({"kind": kind}), reference, None
    kinds = {one.name: one.kind for one in said if one.kind is not None}
    if len(set(kinds.values())) > 1:
        raise ConfigError(
            say(
                "the adapters in {path} are for different tasks: {tasks}; say which one to serve with --task",
                path=adapters,
                tasks=counted(kinds),
            )
        )
    manifests = [one.manifest for one in said if one.manifest is not None]
    if not manifests:
        raise ConfigError(say("no adapter in {path} says what it is for; name the task with --task", path=adapters))
    described = {key: value for key, value in manifests[0].task.items() if key != "labels"}
    packed = {one.base.quantize for one in manifests}
    return task_of(described), reference, packed.pop() if len(packed) == 1 else None


def counted(said: Mapping[str, str]) -> str:
    """What adapters say, by their names, in one line: `a (2, law for example), b (1, tax for example)`."""
    names: dict[str, list[str]] = {}
    for name, value in said.items():
        names.setdefault(value, []).append(name)
    return listing(
        say("{value} ({count}, {example} for example)", value=value, count=len(found), example=found[0])
        for value, found in sorted(names.items(), key=lambda one: -len(one[1]))
    )


def _base(adapters: Path, said: list[_Said]) -> str:
    bases = {one.name: one.base for one in said if one.base is not None}
    if not bases:
        raise ConfigError(
            say("no adapter in {path} says which base it belongs to; name it with --model", path=adapters)
        )
    if len(set(bases.values())) > 1:
        raise ConfigError(
            say(
                "the adapters in {path} belong to different bases: {bases}; say which one to serve with --model",
                path=adapters,
                bases=counted(bases),
            )
        )
    return next(iter(bases.values()))


def _said(name: str, folder: Path) -> _Said:
    try:
        return _Said(name, read_manifest(folder), base_of(folder))
    except Exception:
        return _Said(name, None, None)
