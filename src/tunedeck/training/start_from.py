"""The settings of a run that continues from an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.formats.manifest import Manifest, read_manifest


def with_adapter(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's values with base, task and method of the adapter that it continues from, where it names one.

    ConfigError where the values name another method or task, or where the adapter is not a classifier.
    """
    found = dict(values)
    start = found.get("start_from")
    if start is None:
        if found.get("replay") is not None:
            raise ConfigError(say("replay goes with an adapter to go on from: --from ADAPTER"))
        return found
    manifest = classifier_of(Path(str(start)))
    for group, own in (("method", manifest.method), ("task", manifest.task)):
        given = found.get(group)
        kind = given.get("kind") if isinstance(given, Mapping) else given
        if kind not in (None, own.get("kind")):
            raise ConfigError(
                say(
                    "{path} has the {group} {own}, not {given}; leave it out",
                    path=start,
                    group=group,
                    own=own.get("kind"),
                    given=kind,
                )
            )
        found[group] = {**own, **(given if isinstance(given, Mapping) else {})}
    found["task"]["labels"] = None  # those of the adapter, and the new ones of the data
    found.setdefault("model", manifest.base.reference)
    if manifest.base.quantize is not None:
        found.setdefault("quantize", manifest.base.quantize)
    return found


def classifier_of(folder: Path) -> Manifest:
    """Return the manifest of an adapter with labels; ConfigError for another one."""
    manifest = read_manifest(folder.expanduser())
    if manifest is None or not manifest.task.get("labels"):
        raise ConfigError(say("{path} is not the folder of a classifier trained by tunedeck", path=folder))
    return manifest
