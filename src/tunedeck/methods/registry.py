"""The methods by name. Adding one is a folder beside this file and a line here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from tunedeck.core.errors import ConfigError, UnsupportedKindError
from tunedeck.core.messages import listing, nearest, say
from tunedeck.methods.base import Method, MethodConfig
from tunedeck.methods.bottleneck.config import BottleneckConfig
from tunedeck.methods.full.config import FullConfig
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig

METHODS: Mapping[str, type[MethodConfig]] = {
    "lora": LoraConfig,
    "bottleneck": BottleneckConfig,
    "prompt_tuning": PromptTuningConfig,
    "full": FullConfig,
}


def method_of(config: MethodConfig) -> Method:
    """The torch side of a config's method."""
    return cast(Method, import_module(f"tunedeck.methods.{config.kind}.layer"))


def config_of(kind: str, values: Mapping[str, Any]) -> MethodConfig:
    """A method's config from plain values, as run files and manifests carry them.

    Raises UnsupportedKindError for an unknown method, ConfigError for an unknown key or a value that does not fit.
    """
    config_type: Any = METHODS.get(kind.replace("-", "_"))
    if config_type is None:
        raise UnsupportedKindError(
            say("the method {kind!r} is not supported (supported: {known})", kind=kind, known=listing(METHODS))
            + nearest(kind, METHODS)
        )
    known = [field.name for field in dataclasses.fields(config_type)]
    for key in values:
        if key not in known:
            raise ConfigError(
                say("unknown key {key!r} for the method {kind}", key=key, kind=kind)
                + nearest(key, known)
                + say("; allowed: {known}", known=listing(known))
            )
    try:
        return cast(MethodConfig, TypeAdapter(config_type).validate_python(dict(values)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        raise ConfigError(
            say(
                "{kind}.{key}: {reason}, got {value!r}", kind=kind, key=where, reason=first["msg"], value=first["input"]
            )
        ) from error


def values_of(config: MethodConfig) -> dict[str, Any]:
    """A config as plain values, the inverse of `config_of`."""
    return dataclasses.asdict(cast(Any, config))
