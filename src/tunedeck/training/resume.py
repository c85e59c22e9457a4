"""The rules of a run folder: one process writes it, and a run resumes only with all that its steps depend on
unchanged.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import sweep, write_text
from tunedeck.core.task_settings import task_config, task_values
from tunedeck.core.values import to_values
from tunedeck.deck.deck import Deck
from tunedeck.methods.registry import config_of
from tunedeck.tasks.base import Dataset
from tunedeck.training.checkpoint import Checkpoint, Checkpoints
from tunedeck.training.config import TrainingSettings
from tunedeck.training.earlier_names import RENAMED, UNSAID
from tunedeck.training.state import COMPLETE

FORMAT = 1
"""Counts up when a checkpoint's content changes."""
CONFIG, EVENTS, METRICS = "config.yaml", "events.jsonl", "metrics.json"
_FREE = {"checkpoint_every", "keep_checkpoints", "trackers", "gradient_checkpointing"}
"""Settings that change no step."""


def identity(
    deck: Deck, adapter: str, dataset: Dataset[Any], settings: TrainingSettings, processes: int
) -> dict[str, Any]:
    """Return all that a run's steps depend on, as JSON values under dotted keys."""
    manifest = deck.adapter(adapter).manifest
    values = {
        "checkpoint format": FORMAT,
        "processes": processes,
        "model": {"fingerprint": deck.base.fingerprint, "dtype": str(deck.base.dtype), "quantize": deck.base.quantize},
        "data": {"train": dataset.sha256, "evaluation": _digest(dataset.evaluation)},
        "task": manifest.task,
        "method": manifest.method,
        "training": settings.model_dump(exclude=_FREE),
    }
    plain: dict[str, Any] = json.loads(json.dumps(_flat(values)))
    return plain


def resume_point(folder: Path, checkpoints: Checkpoints, resume: bool, accelerator: Accelerator) -> Checkpoint | None:
    """Return the checkpoint to resume from; a new run's folder is cleared of the files of an earlier one.

    Read by the first process and sent to all others. Raises TrainingError when the run in the folder is another one or
    finished.
    """
    saved = None
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        if resume:
            check_unfinished(folder)
            saved = checkpoints.read()
            if saved is None:
                warnings.warn(
                    say("{path} holds no checkpoint yet; the run starts from the beginning", path=folder), stacklevel=3
                )
            else:
                check_same(folder, saved.state["run"], checkpoints.run)
        else:
            checkpoints.clear()
            (folder / METRICS).unlink(missing_ok=True)
    return cast("Checkpoint | None", broadcast_object_list([saved])[0])


def check_same(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise TrainingError that names what differs."""
    was = _with_unsaid({_current(key): value for key, value in was.items()}, now)
    different = [
        say("{key} was {old}, is {new}", key=key, old=_short(was.get(key)), new=_short(now.get(key)))
        for key in dict.fromkeys([*was, *now])
        if was.get(key) != now.get(key)
    ]
    if different:
        raise TrainingError(
            say(
                "cannot resume {path}: settings have changed ({differences}); restore them or start a new run",
                path=folder,
                differences="; ".join(different),
            )
        )


def _with_unsaid(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a checkpoint with what the version that wrote it, which lacks some of those that are
    compared, did. A setting that a method has got since is added with its default, which changes nothing.
    """
    if (kind := was.get("method.kind")) is not None:
        defaults = _flat({"method": json.loads(json.dumps(to_values(config_of(kind, {}))))})
        was = {**{key: value for key, value in defaults.items() if key in now}, **was}
    if "training.head_init" in was:
        return dict(was)
    task = {key.removeprefix("task."): value for key, value in was.items() if key.startswith("task.")}
    described = json.loads(json.dumps(task_values(task_config(task).as_described(task))))
    unsaid = _flat({"training": UNSAID, "task": described})
    return {**was, **{key: value for key, value in unsaid.items() if key in now}}


def keep_config(out: Path, values: Mapping[str, Any], resume: bool) -> None:
    """Write a run's settings into its folder; those of a run that is resumed stay as they are."""
    if not (resume and (out / CONFIG).exists()):
        write_text(out / CONFIG, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def is_finished(folder: Path) -> bool:
    """Tell whether the run in a folder has come to its end."""
    try:
        return json.loads((folder / METRICS).read_text(encoding="utf-8"))["stopped"] in COMPLETE
    except (OSError, ValueError, KeyError):
        return False


def check_unfinished(folder: Path) -> None:
    """Raise TrainingError when the run in a folder has come to its end."""
    if is_finished(folder):
        raise TrainingError(
            say("the run in {path} is finished; its adapter is in {adapter}", path=folder, adapter=folder / "adapter")
        )


def _digest(examples: Sequence[Any]) -> str:
    return hashlib.sha256("\n".join(map(repr, examples)).encode("utf-8", "surrogatepass")).hexdigest()


def _flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value})
    return flat


def _current(key: str) -> str:
    """Return the present name of a key; earlier versions had other names under `training.`."""
    group, _, name = key.partition(".")
    return f"{group}.{RENAMED.get(name, name)}" if group == "training" else key


def _short(value: Any) -> str:
    """Return digests by their beginning."""
    text = listing(value) if isinstance(value, list) else "null" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
