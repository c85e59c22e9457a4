"""A config that lacks something is refused by name, whoever brings it, and a broken plug-in does not stop the
others.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, make_dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import tunedeck as td
from tunedeck.core.errors import ConfigError, UnsupportedKindError
from tunedeck.core.plug_ins import load_plug_ins
from tunedeck.methods import registry
from tunedeck.methods.registry import METHODS, check_config, check_plug_in, config_of, method_of

MEMBERS = (
    "kind",
    "layer_module",
    "stored_as",
    "mergeable",
    "short_names",
    "quantized_name",
    "search_space",
    "learning_rate",
    "learning_rates",
    "trains",
    "virtual_tokens",
    "count_parameters",
    "lowest_layer",
    "kept_bytes",
    "forward_overhead",
)


def config_class(**changes: Any) -> type:
    """A config class that has every member; a change to None takes a member away."""
    members = {name: getattr(td.LoraConfig, name) for name in MEMBERS}
    members |= {"kind": "scale", "stored_as": "tunedeck", "layer_module": "scaling_layers", **changes}
    fields = [("size", int, 4)]
    return make_dataclass(
        "ScaleConfig", fields, namespace={k: v for k, v in members.items() if v is not None}, frozen=True
    )


def point(monkeypatch: pytest.MonkeyPatch, name: str, config: type | None) -> EntryPoint:
    """An entry point to a config class in a module of its own; None where that module lacks it."""
    module = ModuleType(f"package_of_{name}")
    if config is not None:
        module.Config = config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, f"{module.__name__}:Config", registry.ENTRY_POINTS)


@pytest.mark.parametrize("member", MEMBERS[1:])
def test_a_config_without_a_member_is_refused_by_the_name_of_both(member: str) -> None:
    check_config(config_class())
    without = make_dataclass("C", [], namespace={n: getattr(td.LoraConfig, n) for n in MEMBERS if n != member})
    with pytest.raises(ConfigError, match=rf"the config of the method 'lora' lacks {member}$"):
        check_config(without)


def test_a_config_needs_a_default_for_every_field() -> None:
    @dataclass(frozen=True)
    class Config:
        kind: ClassVar[str] = "narrow"
        width: int

    for name in MEMBERS[1:]:
        setattr(Config, name, getattr(td.LoraConfig, name))
    with pytest.raises(ConfigError, match="'narrow' has no default for width"):
        check_config(Config)


def test_broken_plug_ins_are_named_and_do_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        point(monkeypatch, "gone", None),
        point(monkeypatch, "lora", config_class(kind="lora")),
        point(monkeypatch, "other", config_class(kind="another")),
        point(monkeypatch, "hub", config_class(kind="hub", stored_as="peft")),
        point(monkeypatch, "half", make_dataclass("Half", [], namespace={"kind": "half"})),
        point(monkeypatch, "thief", config_class(kind="thief", short_names={"head": {}})),
        point(monkeypatch, "scale", config_class()),
        EntryPoint("absent", "no_such_package.config:Config", registry.ENTRY_POINTS),
    ]
    with pytest.warns(UserWarning, match="cannot be used"):
        found, plug_ins = load_plug_ins(points, "method", METHODS, check_plug_in)
    assert found.keys() - METHODS.keys() == {"scale"}
    broken = {plug_in.name: plug_in.error for plug_in in plug_ins if plug_in.error is not None}
    reasons = {
        "gone": "module 'package_of_gone' has no attribute 'Config'",
        "lora": "the name lora is already used by another method",
        "other": "its kind is 'another', not the entry point's name",
        "hub": "stored_as must be 'tunedeck', got 'peft'",
        "half": "the config of the method 'half' lacks layer_module",
        "thief": "the name head is already used by another method",
        "absent": "No module named 'no_such_package'",
    }
    assert broken.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert f"the method {name!r} of the package" in broken[name]
        assert reason in broken[name]
        assert broken[name].endswith("update or uninstall that package")


def test_a_broken_plug_in_that_is_asked_for_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BROKEN", {"scale": "the package says why"})
    with pytest.raises(UnsupportedKindError, match="the package says why"):
        config_of("scale", {})


def test_layers_without_a_function_are_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scaling_layers.py").write_text("def shapes(base, config): ...\ndef build(base, config): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedKindError, match="'scale', module scaling_layers, cannot be used: it lacks merge"):
        method_of(config_class()())
    monkeypatch.delitem(sys.modules, "scaling_layers")
    (tmp_path / "scaling_layers.py").write_text("import no_such_library_at_all\n")
    with pytest.raises(UnsupportedKindError, match="No module named 'no_such_library_at_all'"):
        method_of(config_class()())
