"""PEFT's `target_modules`, which may mean more modules than ours: read from a file, and written so that PEFT's rules
select the same modules.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tunedeck.core.errors import AdapterFileError, TargetError
from tunedeck.core.i18n import listing, say
from tunedeck.core.patterns import fullmatch
from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.targets import select_targets

_NUMBERED = re.compile(r"^.*?\.\d+\.")
"""Prefix of a module's path within its layer."""


def read_targets(
    config: Mapping[str, Any], paths: Collection[str]
) -> tuple[str | tuple[str, ...], tuple[int, ...] | None]:
    """Return our `target_modules` and `layers_to_transform` for a file whose tensors belong to `paths`.

    Raises AdapterFileError for a tensor that the file's target_modules do not name.
    """
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if isinstance(targets, list):
        targets = list(dict.fromkeys(targets))
    strays = sorted(path for path in paths if targets and not _may_mean(targets, path))
    if strays:
        raise AdapterFileError(
            say(
                "the adapter holds tensors for {modules}, which its target_modules {targets} do not name",
                modules=listing(strays[:3]),
                targets=targets,
            )
        )
    if (
        not targets
        or config.get("exclude_modules")
        or config.get("layers_pattern")
        or not all(_NUMBERED.search(path) for path in paths)
        or not _selects(targets, layers, paths)
    ):
        # The tensors say which modules are meant; naming each by its path keeps what the file's patterns chose.
        return tuple(sorted(paths)), None
    chosen = targets if isinstance(targets, str) else tuple(sorted(targets))
    return chosen, None if layers is None else tuple([layers] if isinstance(layers, int) else layers)


def named_linears(config: Mapping[str, Any], names: ModelNames) -> set[str]:
    """Return the linear layers of a known architecture that a file's list of target_modules names."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or config.get("exclude_modules") or names.spec is None:
        return set()
    paths = (one.path for one in names.spec.linears)
    return {names.in_model(path) for path in paths if any(f".{path}".endswith(f".{name}") for name in targets)}


def written_targets(
    targets: tuple[str, ...] | str | None, paths: Collection[str], names: ModelNames
) -> str | list[str]:
    """Return `target_modules` by PEFT's rules, which search the whole model: a short name there might reach a pooler
    or a head.
    """
    in_layer = {path: _NUMBERED.sub("", path) for path in paths}
    if targets is None or targets == "all-linear":
        return sorted(set(in_layer.values()))
    if isinstance(targets, str):
        return targets
    chosen: list[str] = []
    for target in targets:
        too_short = any(f".{path}".endswith(f".{target}") for path in names.linears_outside_layers)
        longer = {short for path, short in in_layer.items() if f".{path}".endswith(f".{target}")}
        chosen += sorted(longer) if too_short else [target]
    return chosen


def without_prefix(targets: tuple[str, ...] | str | None, prefix: str) -> tuple[str, ...] | str | None:
    """Return `target_modules` with paths as the model without a head has them."""
    return tuple(path.removeprefix(prefix) for path in targets) if isinstance(targets, tuple) else targets


def _may_mean(targets: str | list[str], path: str) -> bool:
    """Tell whether target_modules can name a path by PEFT's rules; the file may leave out the base's first parts."""
    parts = path.split(".")
    shorter = [".".join(parts[start:]) for start in range(len(parts))]
    if isinstance(targets, str):
        return targets == "all-linear" or any(fullmatch(targets, name) for name in shorter)
    return any(name in targets for name in shorter)


def _selects(targets: str | list[str], layers: list[int] | int | None, paths: Collection[str]) -> bool:
    """Tell whether the file's target_modules name exactly the modules that have tensors, by our stricter rules."""
    try:
        wanted = None if layers is None else tuple([layers] if isinstance(layers, int) else layers)
        chosen = targets if isinstance(targets, str) else tuple(targets)
        return set(select_targets(chosen, sorted(paths), layers_to_transform=wanted)) == set(paths)
    except TargetError:
        return False
