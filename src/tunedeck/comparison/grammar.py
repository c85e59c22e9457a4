"""The entries of a comparison from `--methods lora:r=4,16,full`: which method, with which settings, under which name."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import listing, nearest, say
from tunedeck.methods.registry import METHODS
from tunedeck.training.config import SHORT_NAMES, TrainingSettings

BUDGET = ("seed", "epochs", "max_steps", "max_minutes")
"""Settings of training that are the same for all entries, or there would be nothing to compare."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry: `method` and `training` are values of a run file, `given` the settings named for it."""

    name: str
    method: dict[str, Any]
    training: dict[str, Any]
    given: frozenset[str]

    @property
    def folder(self) -> str:
        """The name as a folder may be called on every system."""
        return re.sub(r"[^\w.=-]+", "-", self.name)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A method as it was written, and the values that each of its settings is to take."""

    name: str
    values: dict[str, list[Any]]


def parse_methods(text: str, run_values: Mapping[str, Any]) -> list[Candidate]:
    """The entries, in the order written; settings of the run file's own method count for entries of that method.

    `method` or `method:key=value`, entries separated by commas; a piece that names no method is a further value of the
    key before it, and several values make several entries. Raises ConfigError that names the piece.
    """
    wanted = _read(text)
    found: list[Candidate] = []
    for one in wanted:
        told_apart = _told_apart(wanted, one.name)
        for combination in itertools.product(*one.values.values()):
            settings = dict(zip(one.values, combination, strict=True))
            candidate = _candidate(one.name, settings, told_apart, run_values)
            if any(candidate.folder == other.folder for other in found):
                raise ConfigError(say("--methods names {name!r} twice", name=candidate.name))
            found.append(candidate)
    return found


def _read(text: str) -> list[_Wanted]:
    found: list[_Wanted] = []
    key = ""
    for piece in text.split(","):
        first, *settings = (part.strip() for part in piece.split(":"))
        if _plain(first) in _known():
            found.append(_Wanted(first, {}))
            key = ""
        elif not key:
            raise ConfigError(
                say("--methods: {piece!r} is no method", piece=first)
                + nearest(_plain(first), _known())
                + say("; allowed: {known}", known=listing(_known()))
            )
        else:
            found[-1].values[key].append(_value(first, piece))
        for setting in settings:
            key, equals, value = (part.strip() for part in setting.partition("="))
            if not equals or not key:
                raise ConfigError(say("--methods: {piece!r} must be key=value, as in lora:r=16", piece=setting))
            if key in found[-1].values:
                raise ConfigError(say("--methods: {key!r} is given twice for {name}", key=key, name=found[-1].name))
            found[-1].values[key] = [_value(value, piece)]
    return found


def _value(text: str, piece: str) -> Any:
    """A number, several names joined by +, or whatever YAML makes of it."""
    if not text:
        raise ConfigError(say("--methods: a value is missing in {piece!r}", piece=piece))
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text.split("+") if "+" in text else yaml.safe_load(text)


def _candidate(written: str, settings: dict[str, Any], told_apart: Sequence[str], run_values: Mapping[str, Any]) -> Candidate:  # fmt: skip
    named = dict(SHORT_NAMES.get(_plain(written), {"kind": _plain(written)}))
    own = [field.name for field in dataclasses.fields(METHODS[named["kind"]])]  # type: ignore[arg-type]
    loop = [name for name in TrainingSettings.model_fields if name not in BUDGET]
    for key in settings:
        if key in BUDGET:
            raise ConfigError(say("--methods: {key!r} must be the same for all; set it outside, as --set training.{key}=...", key=key))  # fmt: skip
        if key not in own and key not in loop:
            raise ConfigError(
                say("--methods: {method} has no setting {key!r}", method=written, key=key)
                + nearest(key, [*own, *loop])
                + say("; allowed: {known}", known=listing([*own, *loop]))
            )
    filed = run_values.get("method", "lora")
    filed = dict(filed) if isinstance(filed, Mapping) else {"kind": filed}
    filed |= SHORT_NAMES.get(_plain(str(filed.get("kind"))), {"kind": _plain(str(filed.get("kind", "lora")))})
    same = filed["kind"] == named["kind"]
    rate = run_values.get("training", {}).get("learning_rate") if same and "method" in run_values else None
    training = {key: value for key, value in settings.items() if key in loop}
    marks = [f"{key}={_shown(settings[key])}" for key in told_apart if key in settings]
    return Candidate(
        name=" ".join([written, *marks]),
        method={**(filed if same else {}), **named, **{key: value for key, value in settings.items() if key in own}},
        training={"learning_rate": rate, **training},
        given=frozenset(settings),
    )


def _told_apart(wanted: Sequence[_Wanted], name: str) -> list[str]:
    """The settings in which the entries of one method differ, which their names then show."""
    same = [one for one in wanted if one.name == name]
    keys = dict.fromkeys(key for one in same for key in one.values)
    return [key for key in keys if len({repr(one.values.get(key)) for one in same}) > 1 or any(len(one.values.get(key, [])) > 1 for one in same)]  # fmt: skip


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)  # fmt: skip


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _known() -> list[str]:
    return [*METHODS, *SHORT_NAMES]
