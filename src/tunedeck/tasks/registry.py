"""The tasks by name, with all that other rooms ask of them; their settings alone, without torch, are in the core."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, cast

from tunedeck.core import task_settings
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.core.plug_ins import load_plug_ins
from tunedeck.core.task_settings import (
    BUILT_IN,
    CONFIGS,
    DEFAULT_TASK,
    ENTRY_POINTS,
    TaskConfig,
    config_type_of,
    load_view,
    task_config,
)
from tunedeck.deck.task import Capability, Embedding, Generating, Labelled, Predicting, Task
from tunedeck.tasks.base import Comparing, TaskView, TrainableTask

_PROTOCOLS: Mapping[Capability, type[Any]] = {
    "labels": Labelled,
    "predictions": Predicting,
    "text": Generating,
    "vectors": Embedding,
}


def _members(*protocols: type[Any]) -> list[str]:
    """Return the names of the members of protocols; Python 3.13 has typing.get_protocol_members."""
    names = [name for protocol in protocols for name in (*protocol.__annotations__, *vars(protocol))]
    return [name for name in names if not name.startswith("_")]


def check_view(view: TaskView) -> None:
    """Raise ConfigError, which names the task and the member, for a task that lacks something."""
    task = view.task
    name, offered = getattr(task, "kind", task.__qualname__), set(dir(task))
    capabilities: frozenset[Capability] = getattr(task, "capabilities", frozenset())
    needed = _members(Task, TrainableTask, *(_PROTOCOLS[one] for one in _PROTOCOLS if one in capabilities))
    if dataclasses.is_dataclass(task):
        offered |= {field.name for field in dataclasses.fields(task)}
    missing = [member for member in needed if member not in offered]
    if missing:
        raise ConfigError(say("the task {name!r} lacks {missing}", name=name, missing=listing(missing)))
    if not dataclasses.is_dataclass(task):
        raise ConfigError(say("the task {name!r} is not a dataclass", name=name))
    unknown = capabilities - set(_PROTOCOLS)
    if unknown:
        raise ConfigError(
            say(
                "the task {name!r} has the capability {unknown}; allowed: {known}",
                name=name,
                unknown=listing(sorted(unknown)),
                known=listing(_PROTOCOLS),
            )
        )


def check_plug_in(name: str, view: object, known: Mapping[str, TaskView]) -> None:
    """Raise ConfigError for another package's task that cannot be used."""
    if not isinstance(view, TaskView):
        raise ConfigError(say("its view is a {type}, not a TaskView", type=type(view).__name__))
    check_view(view)
    if view.kind != name:
        raise ConfigError(say("its kind is {kind!r}, not the entry point's name", kind=view.kind))


_OURS: dict[str, TaskView] = {kind: load_view(config_type) for kind, config_type in BUILT_IN.items()}
_points = [point for point in entry_points(group=ENTRY_POINTS) if point.name in CONFIGS]
TASKS, _loaded = load_plug_ins(_points, say("task"), _OURS, check_plug_in, lambda point: load_view(CONFIGS[point.name]))
"""Every task by its kind, this package's first."""
PLUG_INS = [*_loaded, *(plug_in for plug_in in task_settings.PLUG_INS if plug_in.error is not None)]
"""Tasks of other packages."""
BROKEN = {plug_in.name: plug_in.error for plug_in in PLUG_INS if plug_in.error is not None}


def view_of(task: Task | TaskConfig | str) -> TaskView:
    """Return the view of a task, given as an object or by its kind; ConfigError for an unknown kind."""
    kind = task if isinstance(task, str) else task.kind
    if kind in BROKEN and kind not in TASKS:
        raise ConfigError(BROKEN[kind])
    return TASKS[config_type_of(kind).kind]


def view_of_values(values: Mapping[str, Any]) -> TaskView:
    """Return the view of the task that a manifest's values name; see `view_of`."""
    return view_of(str(values.get("kind", DEFAULT_TASK)))


def comparing_of(task: Task | str) -> Comparing:
    """Return the description of a task for comparisons; ConfigError for a task that cannot be compared."""
    view = view_of(task)
    if view.comparing is None:
        raise ConfigError(say("the task {kind} cannot be compared: its TaskView has no `comparing`", kind=view.kind))
    return view.comparing


def task_of(settings: TaskConfig | Mapping[str, Any]) -> TrainableTask:
    """Return a task from its settings, or from plain values as manifests carry them: `kind` and that task's keys.

    Raises ConfigError for an unknown task, an unknown key or a value that does not fit.
    """
    config: Any = task_config(settings)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return cast(TrainableTask, view_of(config.kind).task(**values))


def kind_of_folder(task_type: str, model_class: str, head_type: str) -> str | None:
    """Return the task that PEFT's task_type, or the head's type or the model class in an AdapterHub folder mean; None
    where none of them tells.
    """
    for kind, view in TASKS.items():
        if view.task.peft_task == task_type or head_type in view.head_types:
            return kind
    for kind, view in TASKS.items():
        if view.model_classes and model_class.endswith(view.model_classes):
            return kind
    return None


def first_kind_with(capability: Capability) -> str:
    """Return the first task of that capability, which is one of this package's."""
    return next(kind for kind, view in TASKS.items() if capability in view.task.capabilities)
