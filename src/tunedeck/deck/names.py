"""What formats and methods need to know of a loaded base."""

from __future__ import annotations

import warnings
from typing import Any, cast

from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.deck.task import Task
from tunedeck.formats.manifest import BaseRecord, Manifest, versions
from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.base import Base, MethodConfig
from tunedeck.methods.linears import linears_outside_layers
from tunedeck.models.load import LoadedBase


def model_names(base: LoadedBase) -> ModelNames:
    """How the base's modules are called, for reading and writing adapter folders."""
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
    """The base as a method builds on it."""

    def tokenize(text: str) -> list[int]:
        if base.tokenizer is None:
            return []
        return cast("list[int]", base.tokenizer(text, add_special_tokens=False)["input_ids"])

    return Base(base.model, base.prefix, base.spec, head, tokenize)


def new_manifest(base: LoadedBase, task: Task, config: MethodConfig) -> Manifest:
    """The manifest of an adapter that has not been trained yet."""
    return Manifest(
        base=BaseRecord(reference=base.reference, fingerprint=base.fingerprint, quantize=base.quantize),
        task=task.describe(),
        method={"kind": config.kind, **to_values(config)},
        versions=versions(),
    )


def bare_labels(base: LoadedBase, task: Task) -> tuple[str, ...]:
    """The labels that the bare base answers with; warns when its head is not trained."""
    if base.untrained:
        warnings.warn(
            say("the bare base {model} has no trained head; its answers are at random", model=base.reference),
            stacklevel=3,
        )
    if task.labels is not None and base.untrained:
        return task.labels
    return tuple(name for _, name in sorted(cast(Any, base.model).config.id2label.items()))
