"""The entries of a comparison from `lora:r=4,16,full`: which method, with which settings, under which name."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import BROKEN, DEFAULT_METHOD, METHODS, SHORT_NAMES
from tunedeck.training.config import TrainingSettings
from tunedeck.training.earlier_names import with_current_names

Methods: TypeAlias = str | Sequence[str | MethodConfig]

BUDGET = ("seed", "epochs", "max_steps", "max_minutes")
"""Settings of training that are the same for all entries, or there would be nothing to compare."""
LOOP = tuple(name for name in TrainingSettings.model_fields if name not in BUDGET)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry: `method` and `training` are values of a run file, `given` the settings named for it."""

    name: str
    method: dict[str, Any]
    training: dict[str, Any]
    given: frozenset[str]

    @property
    def folder(self) -> str:
        """Return the name as a folder may be called on every system."""
        return re.sub(r"[^\w.=-]+", "-", self.name)


@dataclass(frozen=True, slots=True)
class _Term:
    """A method as it was written, and the values that each of its settings is to take.

    `config` is whether it was written as a config, to which the run file adds nothing.
    """

    name: str
    values: dict[str, list[Any]]
    config: bool = False


def parse_methods(methods: Methods, run_values: Mapping[str, Any]) -> list[Candidate]:
    """Return the entries, in the order written.

    A string is `method` or `method:key=value`, entries separated by commas; a piece that names no method is a further
    value of the key before it, and several values make several entries. Settings of the run file's method count for
    entries of that method. A config is one entry, with that config's settings. Raises ConfigError that names the piece.
    """
    terms = _terms(methods)
    found: list[Candidate] = []
    for term in terms:
        shown = _varying_keys(terms, term.name)
        for combination in itertools.product(*term.values.values()):
            settings = dict(zip(term.values, combination, strict=True))
            marks = [f"{key}={_in_name(settings[key])}" for key in shown if key in settings]
            candidate = _candidate(" ".join([term.name, *marks]), term, settings, {} if term.config else run_values)
            if any(candidate.folder == other.folder for other in found):
                raise ConfigError(say("methods names {name!r} twice", name=candidate.name))
            found.append(candidate)
    return found


def _terms(methods: Methods) -> list[_Term]:
    if isinstance(methods, str):
        return _read(methods)
    if not isinstance(methods, Sequence) or not methods:
        raise _neither(methods)
    return [term for one in methods for term in (_read(one) if isinstance(one, str) else [_of_config(one)])]


def _neither(value: Any) -> ConfigError:
    return ConfigError(
        say("methods takes text such as lora:r=8 and configs such as LoraConfig(r=8), got {value!r}", value=value)
    )


def _of_config(config: MethodConfig) -> _Term:
    """Return a config by its method's short name where it has one, with the settings that are not at their default."""
    if not isinstance(config, tuple(METHODS.values())):
        raise _neither(config)
    plain = type(config)()
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    settings = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(plain, name)}
    for short, fixed in SHORT_NAMES.items():
        own = {key: value for key, value in fixed.items() if key != "kind"}
        if fixed["kind"] == config.kind and own.items() <= settings.items():
            rest = {key: [value] for key, value in settings.items() if key not in own}
            return _Term(short, rest, config=True)
    return _Term(config.kind.replace("_", "-"), {key: [value] for key, value in settings.items()}, config=True)


def _read(text: str) -> list[_Term]:
    found: list[_Term] = []
    key = ""
    for piece in text.split(","):
        first, *settings = (part.strip() for part in piece.split(":"))
        if _plain(first) in _known():
            found.append(_Term(first, {}))
            key = ""
        elif _plain(first) in BROKEN:
            raise ConfigError(BROKEN[_plain(first)])
        elif not key:
            raise ConfigError(
                say("methods: {piece!r} is not a method", piece=first)
                + nearest(_plain(first), _known())
                + say("; allowed: {known}", known=listing(_known()))
            )
        else:
            found[-1].values[key].append(_value(first, piece))
        for setting in settings:
            key, equals, value = (part.strip() for part in setting.partition("="))
            if not equals or not key:
                raise ConfigError(say("methods: {piece!r} must be key=value, as in lora:r=16", piece=setting))
            (key,) = with_current_names({key: value})
            if key in found[-1].values:
                raise ConfigError(say("methods: {key!r} is given twice for {name}", key=key, name=found[-1].name))
            found[-1].values[key] = [_value(value, piece)]
    return found


def _value(text: str, piece: str) -> Any:
    """Parse a number, several names joined by +, or any other YAML value."""
    if not text:
        raise ConfigError(say("methods: a value is missing in {piece!r}", piece=piece))
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text.split("+") if "+" in text else yaml.safe_load(text)


def _candidate(name: str, term: _Term, settings: dict[str, Any], run_values: Mapping[str, Any]) -> Candidate:
    named = _kind_of(term.name)
    own = [field.name for field in dataclasses.fields(METHODS[named["kind"]])]  # type: ignore[arg-type]
    _check_keys(term.name, settings, own)
    from_file, rate = _file_settings(named["kind"], run_values)
    return Candidate(
        name=name,
        method={**from_file, **named, **{key: value for key, value in settings.items() if key in own}},
        training={"learning_rate": rate, **{key: value for key, value in settings.items() if key in LOOP}},
        given=frozenset(settings),
    )


def _check_keys(method: str, settings: Mapping[str, Any], own: Sequence[str]) -> None:
    for key in settings:
        if key in BUDGET:
            raise ConfigError(
                say("methods: {key!r} must be the same for all; set it outside, as --set training.{key}=...", key=key)
            )
        if key not in own and key not in LOOP:
            raise ConfigError(
                say("methods: {method} has no setting {key!r}", method=method, key=key)
                + nearest(key, [*own, *LOOP])
                + say("; allowed: {known}", known=listing([*own, *LOOP]))
            )


def _file_settings(kind: str, run_values: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """Return the run file's settings and learning rate for a method of this kind; nothing if its method is
    another.
    """
    filed = run_values.get("method", DEFAULT_METHOD)
    filed = dict(filed) if isinstance(filed, Mapping) else {"kind": filed}
    filed |= _kind_of(str(filed.get("kind", DEFAULT_METHOD)))
    if filed["kind"] != kind:
        return {}, None
    return filed, run_values.get("training", {}).get("learning_rate") if "method" in run_values else None


def _varying_keys(terms: Sequence[_Term], name: str) -> list[str]:
    """Return the settings in which the entries of one method differ, which their names then show."""
    same = [term for term in terms if term.name == name]
    keys = dict.fromkeys(key for term in same for key in term.values)

    def varies(key: str) -> bool:
        written = {repr(term.values.get(key)) for term in same}
        return len(written) > 1 or any(len(term.values.get(key, [])) > 1 for term in same)

    return [key for key in keys if varies(key)]


def _in_name(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind_of(name: str) -> dict[str, Any]:
    """`kind`, and the setting that a short name fixes."""
    return dict(SHORT_NAMES.get(_plain(name), {"kind": _plain(name)}))


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _known() -> list[str]:
    return [*METHODS, *SHORT_NAMES]
