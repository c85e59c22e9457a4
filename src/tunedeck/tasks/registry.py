"""The tasks by name: those of this package, and those that other packages bring.

Adding a task here is a folder beside this file and a line in `_BUILT_IN`. A package adds one with an entry point in the
group `tunedeck.tasks`, whose name is the task's kind and whose object is its `TaskView` (docs/guides/plug-ins.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, cast

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.plug_ins import load_plug_ins
from tunedeck.core.values import from_values
from tunedeck.deck.task import Capability, Embedding, Generating, Labelled, Predicting, Task
from tunedeck.tasks.base import Comparing, TaskView, TrainableTask
from tunedeck.tasks.classify.view import VIEW as CLASSIFY
from tunedeck.tasks.embed.view import VIEW as EMBED
from tunedeck.tasks.generate.view import VIEW as GENERATE

ENTRY_POINTS = "tunedeck.tasks"
DEFAULT_TASK = CLASSIFY.kind
"""The task of a run that names none."""
_BUILT_IN = (CLASSIFY, GENERATE, EMBED)
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
    """Raise ConfigError for another package's task that cannot be used beside those that are known."""
    if not isinstance(view, TaskView):
        raise ConfigError(say("its entry point is a {type}, not a TaskView", type=type(view).__name__))
    if name in known:
        raise ConfigError(say("the name {name} is taken by another task", name=name))
    check_view(view)
    if view.kind != name:
        raise ConfigError(say("its kind is {kind!r}, not the entry point's name", kind=view.kind))


_OURS = {view.kind: view for view in _BUILT_IN}
TASKS, PLUG_INS = load_plug_ins(entry_points(group=ENTRY_POINTS), say("task"), _OURS, check_plug_in)
"""Every task by its kind, this package's first, and what is known of those that other packages bring."""
BROKEN = {plug_in.name: plug_in.error for plug_in in PLUG_INS if plug_in.error is not None}


def view_of(task: Task | str) -> TaskView:
    """What other rooms ask of a task, or of the task of that kind; ConfigError for one that is not known."""
    kind = task if isinstance(task, str) else task.kind
    if kind not in TASKS:
        if kind in BROKEN:
            raise ConfigError(BROKEN[kind])
        raise ConfigError(
            say("unknown task {kind!r}", kind=kind)
            + nearest(kind, TASKS)
            + say("; allowed: {known}", known=listing(TASKS))
        )
    return TASKS[kind]


def view_of_values(values: Mapping[str, Any]) -> TaskView:
    """What other rooms ask of the task that a run file's or a manifest's values name; see `view_of`."""
    return view_of(str(values.get("kind", DEFAULT_TASK)))


def comparing_of(task: Task | str) -> Comparing:
    """What a comparison shows of a task; ConfigError for a task that cannot be compared."""
    view = view_of(task)
    if view.comparing is None:
        raise ConfigError(say("the task {kind} cannot be compared: its TaskView has no `comparing`", kind=view.kind))
    return view.comparing


def task_of(values: Mapping[str, Any]) -> TrainableTask:
    """A task from plain values, as run files and manifests carry them: `kind` and that task's own keys.

    Raises ConfigError for an unknown task, an unknown key or a value that does not fit.
    """
    settings = {key: value for key, value in values.items() if key != "kind"}
    return cast(TrainableTask, from_values(view_of_values(values).task, settings, "task"))


def kind_of_folder(task_type: str, model_class: str) -> str | None:
    """The task that PEFT's task_type or the model class in an AdapterHub folder means; None where neither tells."""
    for kind, view in TASKS.items():
        if view.task.peft_task == task_type:
            return kind
    for kind, view in TASKS.items():
        if view.model_classes and model_class.endswith(view.model_classes):
            return kind
    return None


def first_kind_with(capability: Capability) -> str:
    """The first task of that capability, which is one of this package's."""
    return next(kind for kind, view in TASKS.items() if capability in view.task.capabilities)
