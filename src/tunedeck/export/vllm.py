"""LoRA adapters in a folder that vLLM serves over one base, and the command that does it.

What vLLM takes was read from vllm 0.33: lora/peft_helper.py, lora/lora_model.py, lora/model_manager.py, config/lora.py
and the classes in model_executor/models that carry SupportsLoRA.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunedeck.core.errors import AdapterError, ConfigError, StorageError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import replacing_folder, write_text
from tunedeck.deck.task import Task
from tunedeck.export.folders import write_verified
from tunedeck.export.standalone import OpenedAdapter
from tunedeck.formats.low_rank import kind_name, low_rank
from tunedeck.methods.linears import linears_in_layers
from tunedeck.models.source import find_model
from tunedeck.tasks.base import VllmView
from tunedeck.tasks.registry import view_of

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
SCRIPT = "serve.sh"
_HEADS = ("classifier", "score")
_NAME = re.compile(r"[\w.-]+")


def save_vllm(adapters: Mapping[str, OpenedAdapter], folder: Path) -> str:
    """Write PEFT folders `folder/NAME` of adapters on one base, and serve.sh; returns the command it runs.

    Raises UnsupportedKindError for what vLLM does not take, AdapterError for adapters of different bases or tasks,
    ConfigError for a name or base that its command line cannot hold, StorageError when the folder exists.
    """
    if folder.exists():
        raise StorageError(say("{path} already exists; choose another path", path=folder))
    for name, opened in adapters.items():
        check_vllm(name, opened)
    first = next(iter(adapters.values()))
    strange = [name for name, one in adapters.items() if _served(one) != _served(first)]
    if strange:
        raise AdapterError(
            say(
                "one vLLM serves one base for one task, {base} for {task} here; export separately: {names}",
                base=first.base.reference,
                task=first.task.kind,
                names=listing(strange),
            )
        )
    command = _command(adapters, first)
    with replacing_folder(folder) as staging:
        for name, opened in adapters.items():
            write_verified(opened, staging / name, "peft", name)
        write_text(staging / SCRIPT, f'#!/bin/sh\ncd "$(dirname "$0")" && exec {command}\n')
    return command


def _served(opened: OpenedAdapter) -> tuple[str, str]:
    return opened.base.reference, opened.task.kind


def check_vllm(name: str, opened: OpenedAdapter) -> None:
    """Raise where vLLM would refuse the adapter, or take it and not apply it."""
    model_type, config = _config(opened).model_type, opened.stored.config
    if not _NAME.fullmatch(name):
        raise ConfigError(
            say(
                "{name!r} cannot be named in vLLM's --lora-modules; rename its folder with letters and digits",
                name=name,
            )
        )
    if low_rank(config) is None:
        raise UnsupportedKindError(
            say(
                "vLLM serves LoRA only, and {name!r} is of the kind {kind}: serve it with tunedeck or train lora; "
                "if it can be merged, use tunedeck export merge",
                name=name,
                kind=kind_name(config),
            )
        )
    form = view_of(opened.task).vllm
    if form is None:
        raise UnsupportedKindError(_without_lora(name, opened.task))
    if model_type not in form.model_types:
        raise UnsupportedKindError(
            say(
                "vLLM has no LoRA for {task} on {model_type} models (it has on: {known}); serve it with tunedeck, or "
                "tunedeck export merge",
                task=opened.task.kind,
                model_type=model_type,
                known=listing(form.model_types),
            )
        )
    _check_head(name, opened, form)
    _check_patches(name, opened)


def _check_patches(name: str, opened: OpenedAdapter) -> None:
    """Raise for patches outside the layers and for ranks above vLLM's largest."""
    stored, base = opened.stored, opened.base
    paths = {tensor.rpartition(".")[0] for tensor in stored.tensors}
    outside = sorted(paths - set(linears_in_layers(base.model, base.prefix)))
    if outside:
        raise UnsupportedKindError(
            say("{name!r} patches {path}, outside the layers, where vLLM has no LoRA", name=name, path=outside[0])
        )
    most = _rank(opened)
    if most > MAX_LORA_RANKS[-1]:
        raise UnsupportedKindError(
            say(
                "{name!r} has the rank {rank}, vLLM takes up to {most}; tunedeck export merge",
                name=name,
                rank=most,
                most=MAX_LORA_RANKS[-1],
            )
        )


def _without_lora(name: str, task: Task) -> str:
    """Say why vLLM serves no adapter of a task."""
    if "vectors" in task.capabilities:
        return say(
            "{name!r} is for embeddings: write the merged model with tunedeck export sentence-transformers, "
            "which vLLM serves",
            name=name,
        )
    return say(
        "{name!r} is for the task {task}, which vLLM does not serve; serve it with tunedeck", name=name, task=task.kind
    )


def _check_head(name: str, opened: OpenedAdapter, form: VllmView) -> None:
    """A head must be one linear named classifier or score, over a base that is loaded as a classifier."""
    modules = {tensor.rpartition(".")[0] for tensor in opened.stored.head}
    if modules and not (len(modules) == 1 and modules <= set(_HEADS)):
        raise UnsupportedKindError(
            say(
                "vLLM loads the head of an adapter only if it is one linear layer with the name {known}; that of "
                "{name!r} is {modules}; use tunedeck serve or tunedeck export merge",
                known=listing(_HEADS),
                name=name,
                modules=listing(sorted(modules)),
            )
        )
    classes = _config(opened).architectures or ()
    if form.head and not any("ForSequenceClassification" in one for one in classes):
        raise UnsupportedKindError(
            say(
                "vLLM serves an adapter's classification head over a base that has one itself, and {base} has "
                "none; serve "
                "{name!r} with tunedeck, or tunedeck export merge",
                base=opened.base.reference,
                name=name,
            )
        )


def _config(opened: OpenedAdapter) -> Any:
    return opened.base.model.config


def _rank(opened: OpenedAdapter) -> int:
    return max(len(tensor) for name, tensor in opened.stored.tensors.items() if name.endswith("lora_A"))


def _command(adapters: Mapping[str, OpenedAdapter], first: OpenedAdapter) -> str:
    most = max(_rank(opened) for opened in adapters.values())
    words = ["vllm", "serve", _base(first.base.reference)]
    form = view_of(first.task).vllm
    if form is not None and form.head:
        labels = max(len(opened.stored.labels or ()) for opened in adapters.values())
        words += ["--runner", "pooling", *(["--max-lora-cls-labels", str(labels)] if labels else [])]
    words += ["--enable-lora", "--max-lora-rank", str(next(rank for rank in MAX_LORA_RANKS if rank >= most))]
    if len(adapters) > 1:
        words += ["--max-loras", str(len(adapters))]
    return shlex.join([*words, "--lora-modules", *(f"{name}={name}" for name in adapters)])


def _base(reference: str) -> str:
    """Return the base as vLLM finds it: a hub id or a folder."""
    source = find_model(reference)
    if source.gguf_file is not None:
        raise ConfigError(
            say(
                "vLLM takes LoRA over a base in transformers' form, and {base} is a GGUF file; name the same "
                "model on the hub "
                "or in a folder with --model",
                base=reference,
            )
        )
    folder = Path(source.location)
    return str(folder.resolve()) if folder.is_dir() else source.location
