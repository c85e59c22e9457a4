"""The tasks by name. Adding one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.values import from_values
from tunedeck.tasks.base import TrainableTask
from tunedeck.tasks.classify.task import Classify
from tunedeck.tasks.embed.task import Embed
from tunedeck.tasks.generate.task import Generate

TASKS: Mapping[str, type[Any]] = {"classify": Classify, "generate": Generate, "embed": Embed}


def task_of(values: Mapping[str, Any]) -> TrainableTask:
    """A task from plain values, as run files and manifests carry them: `kind` and that task's own keys.

    Raises ConfigError for an unknown task, an unknown key or a value that does not fit.
    """
    rest = dict(values)
    kind = str(rest.pop("kind", "classify"))
    if kind not in TASKS:
        raise ConfigError(
            say("unknown task {kind!r}", kind=kind)
            + nearest(kind, TASKS)
            + say("; allowed: {known}", known=listing(TASKS))
        )
    return cast(TrainableTask, from_values(TASKS[kind], rest, "task"))
