"""The methods by name: those of this package, and those that other packages bring.

Adding a method here is a folder next to this file and a line in `_BUILT_IN`. A package adds one with an entry point in
the group `tunedeck.methods`, whose name is the method's kind and whose object is its config class
(docs/guides/plug-ins.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from tunedeck.core.errors import ConfigError, UnsupportedKindError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.plug_ins import load_plug_ins
from tunedeck.core.values import from_values
from tunedeck.methods.base import Method, MethodConfig
from tunedeck.methods.bias.config import BiasConfig
from tunedeck.methods.bottleneck.config import BottleneckConfig
from tunedeck.methods.full.config import FullConfig
from tunedeck.methods.ia3.config import Ia3Config
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig

ENTRY_POINTS = "tunedeck.methods"
DEFAULT_METHOD = "lora"
"""The method of a run that names none, and the one that a plan recommends where it fits."""
_BUILT_IN: tuple[type[MethodConfig], ...] = (
    LoraConfig,
    BottleneckConfig,
    PromptTuningConfig,
    PrefixTuningConfig,
    Ia3Config,
    BiasConfig,
    FullConfig,
)
_MEMBERS = tuple(
    name for name in (*MethodConfig.__annotations__, *vars(MethodConfig)) if not name.startswith("_")
)  # Python 3.13 has typing.get_protocol_members
_PLUG_IN_FORMAT = "tunedeck"


def check_config(config_type: type) -> None:
    """Raise ConfigError, which names the method and the member, for a config class that lacks something."""
    name = getattr(config_type, "kind", config_type.__qualname__)
    missing = [member for member in _MEMBERS if member not in dir(config_type)]
    if missing:
        raise ConfigError(say("the config of the method {name!r} lacks {missing}", name=name, missing=listing(missing)))
    if not dataclasses.is_dataclass(config_type):
        raise ConfigError(say("the config of the method {name!r} is not a dataclass", name=name))
    without = [
        field.name
        for field in dataclasses.fields(config_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if without:
        raise ConfigError(
            say("the config of the method {name!r} has no default for {missing}", name=name, missing=listing(without))
        )


def _checked(config_types: Iterable[type[MethodConfig]]) -> dict[str, type[MethodConfig]]:
    found = {}
    for config_type in config_types:
        check_config(config_type)
        found[config_type.kind] = config_type
    return found


def check_plug_in(name: str, config_type: type[MethodConfig], known: Mapping[str, type[MethodConfig]]) -> None:
    """Raise ConfigError for another package's config class that conflicts with a known one."""
    check_config(config_type)
    if config_type.kind != name:
        raise ConfigError(say("its kind is {kind!r}, not the entry point's name", kind=config_type.kind))
    stored_as = config_type().stored_as
    if stored_as != _PLUG_IN_FORMAT:
        raise ConfigError(say("stored_as must be {allowed!r}, got {value!r}", allowed=_PLUG_IN_FORMAT, value=stored_as))
    if not name.isidentifier():
        raise ConfigError(say("a kind consists of letters, digits and underscores"))
    taken = {other for kind, known_type in known.items() for other in (kind, *known_type.short_names)}
    double = sorted(taken & {name, *config_type.short_names})
    if double:
        raise ConfigError(say("the name {name} is already used by another method", name=listing(double)))


_OURS = _checked(_BUILT_IN)
METHODS, PLUG_INS = load_plug_ins(entry_points(group=ENTRY_POINTS), say("method"), _OURS, check_plug_in)
"""The config class of every method, by kind, and what is known of those that other packages bring."""
BROKEN = {plug_in.name: plug_in.error for plug_in in PLUG_INS if plug_in.error is not None}
SHORT_NAMES: Mapping[str, Mapping[str, Any]] = {
    short: {"kind": kind, **settings}
    for kind, found in METHODS.items()
    for short, settings in found.short_names.items()
}
"""Short names for a method with some settings, and those settings."""


def method_of(config: MethodConfig) -> Method:
    """Return the torch side of a config's method; UnsupportedKindError where its module cannot be used."""
    name = config.layer_module
    try:
        module = import_module(name)
    except Exception as error:
        if config.kind in _OURS:
            raise
        raise _unusable(config, f"{type(error).__name__}: {error}") from error
    needed = ("shapes", "build", *(("merge",) if config.mergeable else ()))
    missing = [function for function in needed if function not in dir(module)]
    if missing:
        raise _unusable(config, say("it lacks {missing}", missing=listing(missing)))
    return cast(Method, module)


def _unusable(config: MethodConfig, reason: str) -> UnsupportedKindError:
    return UnsupportedKindError(
        say(
            "the layers of the method {kind!r}, module {module}, cannot be used: {reason}",
            kind=config.kind,
            module=config.layer_module,
            reason=reason,
        )
    )


def config_of(kind: str, values: Mapping[str, Any]) -> MethodConfig:
    """Return a method's config from plain values, as run files and manifests carry them.

    Raises UnsupportedKindError for an unknown or broken method, ConfigError for an unknown key or a value that does not
    fit.
    """
    name = kind.replace("-", "_")
    if name in BROKEN and name not in METHODS:
        raise UnsupportedKindError(BROKEN[name])
    config_type = METHODS.get(name)
    if config_type is None:
        raise UnsupportedKindError(
            say("the method {kind!r} is not supported (supported: {known})", kind=kind, known=listing(METHODS))
            + nearest(kind, METHODS)
        )
    return from_values(config_type, values, "method")
