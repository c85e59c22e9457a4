"""An adapter folder read against the architecture of its base, of which no weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunedeck.core.errors import AdapterFileError, ConfigError, TargetError
from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.deck.reading import check_tensors, method_base, model_names
from tunedeck.deck.task import Task, with_labels
from tunedeck.formats.adapterhub.folder import HEAD_CONFIG
from tunedeck.formats.folder import base_of, detect_format, read_adapter
from tunedeck.formats.manifest import BaseRecord, Manifest, read_manifest, versions
from tunedeck.formats.peft.folder import CONFIG
from tunedeck.formats.tensors import StoredAdapter, read_json
from tunedeck.methods.registry import method_of
from tunedeck.models.load import LoadedBase, load_skeleton
from tunedeck.tasks.registry import first_kind_with, kind_of_folder, task_of


@dataclass(frozen=True, slots=True)
class OpenedAdapter:
    """An adapter's content, the base it belongs to without its weights, and the task it is for."""

    folder: Path
    stored: StoredAdapter
    base: LoadedBase
    task: Task


def open_adapter(folder: Path, model: str | None = None, *, trust_remote_code: bool = False) -> OpenedAdapter:
    """Read an adapter folder of any format; its base is `model`, or the one it names.

    That every tensor has its place and shape there is checked; that the base is the one it was trained on is not, for
    that takes the weights. Raises AdapterFileError, UnsupportedKindError, ModelError, and ConfigError without a base.
    """
    detect_format(folder)
    reference = model or base_of(folder)
    if not reference:
        raise ConfigError(say("{path} does not record its base model; name it with --model", path=folder))
    task = _task(folder, reference, trust_remote_code)
    base = load_skeleton(reference, task.auto_class, trust_remote_code=trust_remote_code)
    stored = replace(read_adapter(folder, model_names(base)), base_reference=reference)
    if stored.head and stored.labels is None:
        count = len(_last_weight(stored, base))
        stored = replace(stored, labels=tuple(f"LABEL_{index}" for index in range(count)))
    manifest = stored.manifest or Manifest(
        base=BaseRecord(reference=reference),
        task=(with_labels(task, stored.labels) if stored.labels else task).describe(),
        method={"kind": stored.config.kind, **to_values(stored.config)},
        versions=versions(),
    )
    opened = OpenedAdapter(folder, replace(stored, manifest=manifest), base, task)
    _check_fit(opened)
    return opened


def _task(folder: Path, reference: str, trust_remote_code: bool) -> Task:
    """Return the task of an adapter from tunedeck.json, else from PEFT's task_type or AdapterHub's head and model
    class.

    Where none of them tells: to generate on a decoder, the bare model on an encoder.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return task_of(manifest.task).as_described(manifest.task)
    config = read_json(folder / CONFIG)
    has_head = (folder / HEAD_CONFIG).exists()
    flex = read_json(folder / HEAD_CONFIG).get("config") if has_head else None
    head_type = str(flex.get("head_type")) if isinstance(flex, dict) else ""
    kind = kind_of_folder(str(config.get("task_type")), str(config.get("model_class")), head_type)
    if kind is None and has_head:
        kind = first_kind_with("labels")
    if kind is None:
        spec = load_skeleton(reference, "AutoModel", trust_remote_code=trust_remote_code).spec
        kind = first_kind_with("text" if spec is not None and spec.causal else "vectors")
    return task_of({"kind": kind}).as_described({})


def _last_weight(stored: StoredAdapter, base: LoadedBase) -> Any:
    """Return the head's matrix that gives the logits, (labels, in)."""
    order = [name for name, _ in base.model.named_parameters() if name in stored.head]
    matrices = [stored.head[name] for name in order if stored.head[name].dim() == 2]
    if not matrices:
        raise AdapterFileError(say("the head of this adapter has no matrix that {model} has", model=base.reference))
    return matrices[-1]


def _check_fit(opened: OpenedAdapter) -> None:
    """Raise AdapterFileError where a tensor has no place or another shape in the base."""
    stored, base = opened.stored, opened.base
    head = tuple({name.rpartition(".")[0] for name in stored.head})
    try:
        check_tensors(stored.tensors, method_of(stored.config).shapes(method_base(base, head), stored.config))
    except TargetError as error:
        raise AdapterFileError(
            say("{path} does not fit this base: {reason}", path=opened.folder, reason=error)
        ) from error
