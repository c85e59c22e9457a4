"""Whether a stored adapter belongs on this base, and which labels it brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tunedeck.core.errors import AdapterError, AdapterFileError, BaseMismatchError, ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.deck.heads import last_linear
from tunedeck.deck.task import Task
from tunedeck.formats.manifest import Manifest
from tunedeck.formats.tensors import StoredAdapter
from tunedeck.methods.base import MethodConfig
from tunedeck.models.load import LoadedBase


def check_trains(config: MethodConfig, task: Task) -> None:
    """Raise ConfigError for a head alone where the task has none: nothing would train."""
    if config.trains == "head" and not task.has_head:
        raise ConfigError(say("only classification has a head to train alone; choose another method for {task}", task=task.kind))  # fmt: skip


def check_manifest(
    folder: Path, manifest: Manifest, base: LoadedBase, task: Task, *, allow_base_mismatch: bool
) -> None:
    """Raise AdapterError for another task, BaseMismatchError for another base unless `allow_base_mismatch`."""
    if manifest.task.get("kind") != task.kind:
        raise AdapterError(
            say(
                "{path} was trained for the task {theirs}, this deck is for {ours}",
                path=folder,
                theirs=manifest.task.get("kind"),
                ours=task.kind,
            )
        )
    theirs = manifest.base.fingerprint
    if not allow_base_mismatch and theirs is not None and theirs != base.fingerprint:
        raise BaseMismatchError(
            say(
                "{path} was trained on {theirs} ({theirs_print}), this deck holds {ours} ({ours_print}); "
                "load that base, or accept it with allow_base_mismatch=True (--allow-base-mismatch)",
                path=folder,
                theirs=manifest.base.reference,
                theirs_print=theirs[:12],
                ours=base.reference,
                ours_print=base.fingerprint[:12],
            )
        )


def check_tensors(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise AdapterFileError when a stored tensor is missing, left over, of another shape or not finite."""
    missing, left_over = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or left_over:
        raise AdapterFileError(
            say(
                "the adapter's tensors do not fit this base: missing {missing}; left over {left_over}",
                missing=_some(missing),
                left_over=_some(left_over),
            )
        )
    for name, expected in shapes.items():
        got = tuple(tensors[name].shape)
        if got != expected:
            raise AdapterFileError(
                say(
                    "tensor {name} has the shape {got}, this base needs {expected}",
                    name=name,
                    got=got,
                    expected=expected,
                )
            )
        if not torch.isfinite(tensors[name]).all():
            raise AdapterFileError(say("tensor {name} holds values that are not finite numbers", name=name))


def check_head(folder: Path, head: dict[str, nn.Module], base: LoadedBase) -> None:
    """Raise AdapterFileError when neither the adapter nor the base has a trained head."""
    lacking = [name for name in base.untrained if not any(name.startswith(f"{path}.") for path in head)]
    if lacking:
        raise AdapterFileError(
            say(
                "{path} brings no {module}, and the base {model} has none that is trained; answers would be at random",
                path=folder,
                module=listing(sorted({name.rpartition(".")[0] for name in lacking})),
                model=base.reference,
            )
        )


def stored_labels(
    folder: Path, stored: StoredAdapter, head: dict[str, nn.Module], known: tuple[str, ...] | None, base: LoadedBase
) -> tuple[str, ...] | None:
    """The labels an adapter names, else those `known` to the deck where the number fits, else LABEL_0 and so on.

    None for an adapter that answers through the base's own head. AdapterFileError when names and head do not fit.
    """
    count = last_linear(head).out_features if head else cast(Any, base.model).config.num_labels
    if stored.labels is not None:
        if len(stored.labels) != count:
            raise AdapterFileError(
                say(
                    "{path} names {names} labels but its head has {count}",
                    path=folder,
                    names=len(stored.labels),
                    count=count,
                )
            )
        return stored.labels
    if not head:
        return None
    if known is not None and len(known) == count:
        return known
    return tuple(f"LABEL_{index}" for index in range(count))


def _some(names: list[str]) -> str:
    shown = listing(names[:3])
    return shown if len(names) <= 3 else say("{shown} and {count} more", shown=shown, count=len(names) - 3)
