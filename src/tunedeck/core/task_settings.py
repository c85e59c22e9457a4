"""The settings of every task by its kind; run files, options of the command line and the JSON schema are made of them.

Nothing here loads torch. Tasks are imported by name, this package's as those of others, so that a deck can make the
task that an adapter's folder names without importing the tasks, which import the deck. Adding a task is a folder in
`tasks/` and a line in `_PLACES`. A package adds one with an entry point in the group `tunedeck.tasks`, whose name is
the task's kind and whose object is the class of its settings (docs/guides/plug-ins.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol, cast

from typing_extensions import Self

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.plug_ins import cannot_be_used, load_plug_ins
from tunedeck.core.values import from_values, to_values


class TaskConfig(Protocol):
    """A task's settings: a frozen dataclass whose fields all have defaults."""

    kind: ClassVar[str]
    """The task's name in run files, manifests and on the command line."""
    view: ClassVar[str]
    """Where the task's TaskView is, as `package.module:NAME`."""

    def as_described(self, described: Mapping[str, Any]) -> Self:
        """Return the same settings with the form of the answers from an adapter's tunedeck.json; {} where there is
        none.
        """
        ...


ENTRY_POINTS = "tunedeck.tasks"
_PLACES = (
    "tunedeck.tasks.classify.config:ClassifyConfig",
    "tunedeck.tasks.generate.config:GenerateConfig",
    "tunedeck.tasks.embed.config:EmbedConfig",
    "tunedeck.tasks.tag.config:TagConfig",
    "tunedeck.tasks.score.config:ScoreConfig",
)
DEFAULT_TASK = "classify"
"""The task of a run that names none."""


def check_plug_in(name: str, config_type: object, known: Mapping[str, type[TaskConfig]]) -> None:
    """Raise ConfigError for another package's settings that conflict with known ones."""
    if not isinstance(config_type, type) or not dataclasses.is_dataclass(config_type):
        raise ConfigError(say("its entry point is not a dataclass of settings"))
    if name in known:
        raise ConfigError(say("the name {name} is taken by another task", name=name))
    missing = [member for member in ("kind", "view", "as_described") if member not in dir(config_type)]
    if missing:
        raise ConfigError(say("the task {name!r} lacks {missing}", name=name, missing=listing(missing)))
    kind = config_type.kind  # type: ignore[attr-defined]
    if kind != name:
        raise ConfigError(say("its kind is {kind!r}, not the entry point's name", kind=kind))


def config_type_of(kind: str) -> type[TaskConfig]:
    """Return the settings class of a task; ConfigError for one that is not known."""
    if kind in CONFIGS:
        return CONFIGS[kind]
    if kind in BROKEN:
        raise ConfigError(BROKEN[kind])
    unknown = say("unknown task {kind!r}", kind=kind)
    raise ConfigError(unknown + nearest(kind, CONFIGS) + say("; allowed: {known}", known=listing(CONFIGS)))


def task_config(values: Any) -> TaskConfig:
    """Return a task's settings from its name, from `kind` and its settings, or as they are.

    Raises ConfigError for an unknown task, an unknown key or a value that does not fit.
    """
    if isinstance(values, tuple(CONFIGS.values())):
        return cast(TaskConfig, values)
    if not isinstance(values, str | Mapping):
        raise ConfigError(say("task: must be a name or a group of keys with kind, got {value!r}", value=values))
    settings = {"kind": values} if isinstance(values, str) else dict(values)
    return from_values(config_type_of(str(settings.pop("kind", DEFAULT_TASK))), settings, "task")


def task_values(config: TaskConfig) -> dict[str, Any]:
    """Return a task's settings as plain values, the inverse of `task_config`."""
    return {"kind": config.kind, **to_values(config)}


def load_view(config_type: type[TaskConfig]) -> Any:
    """Return the object that a task's settings name as its view; ConfigError where another package's cannot be
    imported.
    """
    try:
        return EntryPoint(config_type.kind, config_type.view, ENTRY_POINTS).load()
    except Exception as raised:  # another package's module may raise anything
        package = next((plug_in.package for plug_in in PLUG_INS if plug_in.name == config_type.kind), None)
        if package is None:
            raise
        raise ConfigError(cannot_be_used(say("task"), config_type.kind, package, raised)) from raised


def load_task(values: Any) -> Any:
    """Return a task from its settings, as `task_config` takes them.

    Raises ConfigError for an unknown task, an unknown key or a value that does not fit.
    """
    config: Any = task_config(values)
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return load_view(type(config)).task(**settings)


# Last, because a plug-in's module may import the deck, which imports this one.
_ours: list[type[TaskConfig]] = [EntryPoint("", place, ENTRY_POINTS).load() for place in _PLACES]
BUILT_IN = {config_type.kind: config_type for config_type in _ours}
CONFIGS, PLUG_INS = load_plug_ins(entry_points(group=ENTRY_POINTS), say("task"), BUILT_IN, check_plug_in)
"""The settings class of every task by its kind, and what is known of those that other packages bring."""
BROKEN = {plug_in.name: plug_in.error for plug_in in PLUG_INS if plug_in.error is not None}
