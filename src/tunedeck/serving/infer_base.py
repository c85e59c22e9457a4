"""Infer the task and the base model that the adapters in a folder agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.deck.task import Task
from tunedeck.formats.folder import base_of
from tunedeck.formats.manifest import Manifest, read_manifest
from tunedeck.serving.repository import AdapterRepository
from tunedeck.tasks.registry import task_of


@dataclass(frozen=True, slots=True)
class _AdapterInfo:
    """Task and base of one adapter folder; None where the folder is damaged, which is reported when it is requested."""

    name: str
    manifest: Manifest | None
    base: str | None

    @property
    def kind(self) -> str | None:
        return None if self.manifest is None else str(self.manifest.task.get("kind"))


def task_and_base(adapters: Path, kind: str | None, reference: str | None) -> tuple[Task, str, str | None]:
    """Return (task, base, how it was quantized): what is given, else what the adapters agree on.

    Raises ConfigError where they disagree, so that one stray folder never decides what is loaded, and where none of
    them says.
    """
    repository = AdapterRepository(adapters)
    if not repository.folder.is_dir():
        raise ConfigError(say("there is no folder {path}; name the one that holds the adapter folders", path=adapters))
    if repository.layout.adapters_in(repository.folder):
        raise ConfigError(
            say(
                "{path} is an adapter itself; give the folder that holds it: --adapters {parent}",
                path=adapters,
                parent=repository.folder.parent,
            )
        )
    infos = [_info(name, repository.folder / name) for name in repository.names()]
    if not infos and reference is None:
        raise ConfigError(
            say("there is no adapter in {path}; give another folder, or a base model with --model", path=adapters)
        )
    if kind is not None:
        task_of({"kind": kind})  # an unknown task is an error of its own
        infos = [one for one in infos if one.kind in (None, kind)]
    if reference is None:
        reference = _base(adapters, infos)
    infos = [one for one in infos if one.base == reference] or infos
    if kind is not None:
        return task_of({"kind": kind}), reference, None
    kinds = {one.name: one.kind for one in infos if one.kind is not None}
    if len(set(kinds.values())) > 1:
        raise ConfigError(
            say(
                "the adapters in {path} are for different tasks: {tasks}; choose one with --task",
                path=adapters,
                tasks=counted(kinds),
            )
        )
    manifests = [one.manifest for one in infos if one.manifest is not None]
    if not manifests:
        raise ConfigError(say("no adapter in {path} records its task; name it with --task", path=adapters))
    described = {key: value for key, value in manifests[0].task.items() if key != "labels"}
    schemes = {one.base.quantize for one in manifests}
    return task_of(described), reference, schemes.pop() if len(schemes) == 1 else None


def counted(values: Mapping[str, str]) -> str:
    """Count what adapters say in one line: `a (2, law for example), b (1, tax for example)`."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return listing(
        say("{value} ({count}, {example} for example)", value=value, count=len(found), example=found[0])
        for value, found in sorted(names.items(), key=lambda one: -len(one[1]))
    )


def _base(adapters: Path, infos: list[_AdapterInfo]) -> str:
    bases = {one.name: one.base for one in infos if one.base is not None}
    if not bases:
        raise ConfigError(say("no adapter in {path} records its base model; name it with --model", path=adapters))
    if len(set(bases.values())) > 1:
        raise ConfigError(
            say(
                "the adapters in {path} belong to different bases: {bases}; choose one with --model",
                path=adapters,
                bases=counted(bases),
            )
        )
    return next(iter(bases.values()))


def _info(name: str, folder: Path) -> _AdapterInfo:
    try:
        return _AdapterInfo(name, read_manifest(folder), base_of(folder))
    except Exception:
        return _AdapterInfo(name, None, None)
