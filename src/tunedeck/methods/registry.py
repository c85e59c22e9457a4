"""The methods by name. Adding one is a folder beside this file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from tunedeck.core.errors import UnsupportedKindError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.values import from_values
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
    config_type = METHODS.get(kind.replace("-", "_"))
    if config_type is None:
        raise UnsupportedKindError(
            say("the method {kind!r} is not supported (supported: {known})", kind=kind, known=listing(METHODS))
            + nearest(kind, METHODS)
        )
    return from_values(config_type, values, "method")
