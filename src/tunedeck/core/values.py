"""Plain values, as files and flags carry them, to a settings dataclass and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.validation import reason_of

T = TypeVar("T")
_LARGEST = 3.4e38
"""Largest value of float32."""


def from_values(cls: type[T], values: Mapping[str, Any], group: str) -> T:
    """Return an instance of a settings dataclass or pydantic model; `group` names it in errors, as `method`.

    Raises ConfigError for an unknown key (naming the nearest) or a value that does not fit.
    """
    known = field_names(cls)
    for key in values:
        if key not in known:
            raise ConfigError(
                say("unknown key {key!r}", key=f"{group}.{key}")
                + nearest(key, known)
                + say("; allowed: {known}", known=listing(known))
            )
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([group, *(str(part) for part in first["loc"][:1])])
        raise ConfigError(
            say("{key}: {reason}, got {value!r}", key=key, reason=reason_of(first), value=first["input"])
        ) from error


def field_names(cls: type[Any]) -> list[str]:
    """Return the keys of a settings dataclass or pydantic model."""
    if issubclass(cls, BaseModel):
        return list(cls.model_fields)
    return [field.name for field in dataclasses.fields(cls)]


def check_finite(settings: Any) -> None:
    """Raise ConfigError for a number in a settings dataclass that is not finite or too large for float32."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        for number in value.values() if isinstance(value, Mapping) else (value,):
            if isinstance(number, int | float) and not abs(number) <= _LARGEST:
                raise ConfigError(say("{name} must be a finite number, got {value}", name=field.name, value=number))


def to_values(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain values, the inverse of `from_values`."""
    return dataclasses.asdict(settings)
