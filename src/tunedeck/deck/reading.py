"""Reading an adapter folder for a base: what formats and methods need to know of the base, and whether the folder fits
it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tunedeck.core.errors import AdapterError, AdapterFileError, BaseMismatchError, ConfigError, TargetError
from tunedeck.core.i18n import listing, say
from tunedeck.core.patterns import time_limit
from tunedeck.core.values import to_values
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.heads import head_paths, last_linear, stored_head
from tunedeck.deck.task import Task, has_labels, labels_of, pooling_of, with_labels
from tunedeck.formats.folder import read_adapter
from tunedeck.formats.manifest import FILE, BaseRecord, Manifest, versions
from tunedeck.formats.tensors import ModelNames, StoredAdapter
from tunedeck.methods.base import Base, MethodConfig
from tunedeck.methods.linears import linears_outside_layers
from tunedeck.methods.registry import method_of
from tunedeck.models.load import LoadedBase


def adapter_from_folder(base: LoadedBase, task: Task, folder: Path, name: str, *, allow_base_mismatch: bool) -> Adapter:
    """Read a PEFT, AdapterHub or Tunedeck folder and build its layers; see Deck.load_adapter for what it raises.

    Takes no lock and changes nothing, so that any thread may do it while a batch runs.
    """
    with time_limit():
        try:
            return _adapter(base, task, folder, name, allow_base_mismatch=allow_base_mismatch)
        except TargetError as error:
            raise AdapterFileError(say("{path} does not fit this base: {reason}", path=folder, reason=error)) from error
        except (ConfigError, ArithmeticError) as error:
            raise AdapterFileError(say("{path} is damaged: {reason}", path=folder, reason=error)) from error


def _adapter(base: LoadedBase, task: Task, folder: Path, name: str, *, allow_base_mismatch: bool) -> Adapter:
    stored = read_adapter(folder, model_names(base))
    if stored.manifest is not None:
        check_manifest(folder, stored.manifest, base, task, allow_base_mismatch=allow_base_mismatch)
    own = task.as_described(stored.manifest.task if stored.manifest else {})
    head = stored_head(base, stored.head, pooling_of(own))
    pooled = has_labels(task) and pooling_of(own) != "model"  # then no module of the base's head is trained
    method, place = method_of(stored.config), method_base(base, head_paths(base) if pooled else tuple(head))
    check_tensors(
        stored.tensors, method.shapes(place, stored.config)
    )  # the config may ask for far more than the file has
    built = method.build(place, stored.config)
    if has_labels(task):
        if pooling_of(own) == "model":
            check_head(folder, head, base)
        labels = stored_labels(folder, stored, head, labels_of(task), base)
        own = with_labels(own, labels or bare_labels(base, task))
    if stored.manifest is not None:
        _check_novelty(folder, stored.manifest, head)
    adapter = Adapter(name, stored.config, own, built, head, stored.manifest or new_manifest(base, own, stored.config))
    adapter.fill(stored.tensors)
    return adapter


def _check_novelty(folder: Path, manifest: Manifest, head: dict[str, nn.Module]) -> None:
    """Raise AdapterFileError where the distance to the training texts is of vectors that the head does not read."""
    novelty = None if manifest.confidence is None else manifest.confidence.novelty
    size = last_linear(head).in_features if head else 0
    if novelty is not None and novelty.size != size:
        reason = f"novelty is of {novelty.size} numbers, the head reads {size}"
        raise AdapterFileError(say("{path} is damaged: {reason}", path=folder / FILE, reason=reason))


def check_trains(config: MethodConfig, task: Task) -> None:
    """Raise ConfigError for a head only where the task has none: nothing would train."""
    if config.trains == "head" and not has_labels(task):
        raise ConfigError(
            say("only tasks with labels have a head to train alone; choose another method for {task}", task=task.kind)
        )


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
                "{path} has no {module}, and the base {model} has no trained one; predictions would be random",
                path=folder,
                module=listing(sorted({name.rpartition(".")[0] for name in lacking})),
                model=base.reference,
            )
        )


def stored_labels(
    folder: Path, stored: StoredAdapter, head: dict[str, nn.Module], known: tuple[str, ...] | None, base: LoadedBase
) -> tuple[str, ...] | None:
    """Return the labels an adapter names, else those `known` to the deck where the number fits, else LABEL_0 and so on.

    None for an adapter that answers through the base's head. AdapterFileError when names and head do not fit.
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


def model_names(base: LoadedBase) -> ModelNames:
    """Return the names of the base's modules, for reading and writing adapter folders."""
    model = cast(Any, base.model)
    return ModelNames(
        prefix=base.prefix,
        spec=base.spec,
        model_class=type(model).__name__,
        model_type=model.config.model_type,
        num_layers=base.spec.num_layers if base.spec else model.config.num_hidden_layers,
        num_attention_heads=base.spec.num_heads if base.spec else model.config.num_attention_heads,
        linears_outside_layers=tuple(linears_outside_layers(base.model, base.prefix)),
    )


def method_base(base: LoadedBase, head: tuple[str, ...]) -> Base:
    """Return the base as a method builds on it."""

    def tokenize(text: str) -> list[int]:
        if base.tokenizer is None:
            return []
        return cast("list[int]", base.tokenizer(text, add_special_tokens=False)["input_ids"])

    encoder = base.tokenizer is not None and base.spec is not None and not base.spec.causal
    separator = base.tokenizer.sep_token_id if encoder else None
    return Base(base.model, base.prefix, base.spec, head, tokenize, separator)


def new_manifest(base: LoadedBase, task: Task, config: MethodConfig) -> Manifest:
    """Return the manifest of an adapter that has not been trained yet."""
    return Manifest(
        base=BaseRecord(reference=base.reference, fingerprint=base.fingerprint, quantize=base.quantize),
        task=task.describe(),
        method={"kind": config.kind, **to_values(config)},
        versions=versions(),
    )


def bare_labels(base: LoadedBase, task: Task) -> tuple[str, ...]:
    """Return the labels of the base model; warns when its head is not trained."""
    if base.untrained:
        warnings.warn(
            say(
                "{model} has no trained classification head, so predictions without an adapter are random",
                model=base.reference,
            ),
            stacklevel=3,
        )
    known = labels_of(task)
    if known is not None and base.untrained:
        return known
    return tuple(name for _, name in sorted(cast(Any, base.model).config.id2label.items()))
