"""The entries that a list of methods asks for."""

from __future__ import annotations

from typing import Any

import pytest

import tunedeck as td
from tunedeck.comparison.grammar import Methods, parse_methods
from tunedeck.core.errors import ConfigError
from tunedeck.methods.base import MethodConfig


def read(methods: Methods, **values: Any) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = parse_methods(methods, values)
    return [(one.name, one.method, {k: v for k, v in one.training.items() if v is not None}) for one in found]


def test_several_values_of_a_setting_make_several_entries() -> None:
    assert read("lora:r=4,16,head") == [
        ("lora r=4", {"kind": "lora", "r": 4}, {}),
        ("lora r=16", {"kind": "lora", "r": 16}, {}),
        ("head", {"kind": "full", "layers": "head"}, {}),
    ]
    assert [name for name, *_ in read("lora:r=4,16:learning_rate=1e-3,3e-4")] == [
        "lora r=4 learning_rate=0.001",
        "lora r=4 learning_rate=0.0003",
        "lora r=16 learning_rate=0.001",
        "lora r=16 learning_rate=0.0003",
    ]


def test_settings_go_to_the_method_or_to_training_and_names_joined_by_plus_are_one_value() -> None:
    assert read("lora:r=8:lora_alpha=32:target_modules=query+value:learning_rate=1e-3, prompt-tuning") == [
        (
            "lora",
            {"kind": "lora", "r": 8, "lora_alpha": 32, "target_modules": ["query", "value"]},
            {"learning_rate": 1e-3},
        ),
        ("prompt-tuning", {"kind": "prompt_tuning"}, {}),
    ]


def test_entries_of_one_method_are_told_apart_by_what_differs() -> None:
    found = read("lora:r=4:lora_alpha=8,lora:r=16:lora_alpha=8,full")
    assert [name for name, *_ in found] == ["lora r=4", "lora r=16", "full"]


def test_the_run_files_settings_count_for_its_own_method_alone() -> None:
    values = {"method": {"kind": "lora", "r": 2, "lora_alpha": 4}, "training": {"learning_rate": 0.5}}
    assert read("lora,lora:r=16,seq_bn", **values) == [
        ("lora", {"kind": "lora", "r": 2, "lora_alpha": 4}, {"learning_rate": 0.5}),
        ("lora r=16", {"kind": "lora", "r": 16, "lora_alpha": 4}, {"learning_rate": 0.5}),
        ("seq_bn", {"kind": "bottleneck", "name": "seq_bn"}, {}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lorra", r"'lorra' is not a method \(did you mean 'lora'\?\)"),
        ("lora,4", "'4' is not a method"),
        ("lora:r", "'r' must be key=value"),
        ("lora:r=", "a value is missing in 'lora:r='"),
        ("lora:rank=4", "lora has no setting 'rank'"),
        ("head:learningrate=1", r"did you mean 'learning_rate'\?"),
        ("lora:r=4:r=8", "'r' is given twice"),
        ("lora,lora", "names 'lora' twice"),
        ("lora:epochs=3", "'epochs' must be the same for all"),
        ("", "'' is not a method"),
    ],
)
def test_a_piece_that_cannot_be_understood_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_methods(text, {})


def test_a_config_is_an_entry_of_its_own_settings() -> None:
    given: list[str | MethodConfig] = [
        "head",
        td.LoraConfig(r=4, target_modules=("query", "value")),
        td.LoraConfig(),
        "lora:r=16",
    ]
    assert read(given, method={"kind": "lora", "lora_alpha": 4}) == [
        ("head", {"kind": "full", "layers": "head"}, {}),
        ("lora r=4 target_modules=query+value", {"kind": "lora", "r": 4, "target_modules": ("query", "value")}, {}),
        ("lora", {"kind": "lora"}, {}),
        ("lora r=16", {"kind": "lora", "r": 16, "lora_alpha": 4}, {}),
    ]


def test_a_config_goes_by_its_short_name_and_leaves_the_rest_to_a_search() -> None:
    found = parse_methods([td.FullConfig(layers="head"), td.PromptTuningConfig(num_virtual_tokens=4)], {})
    assert [(one.name, one.given) for one in found] == [
        ("head", frozenset()),
        ("prompt-tuning", frozenset({"num_virtual_tokens"})),
    ]


@pytest.mark.parametrize("methods", [[], [3], td.LoraConfig(), [td.LoraConfig]])
def test_what_is_neither_text_nor_config_is_refused(methods: Any) -> None:
    with pytest.raises(ConfigError, match=r"configs such as LoraConfig\(r=8\), got"):
        parse_methods(methods, {})


def test_an_earlier_name_of_a_training_setting_counts_with_a_note() -> None:
    with pytest.warns(UserWarning, match="training.warmup is called training.warmup_ratio now"):
        (entry,) = parse_methods("lora:warmup=0.1", {})
    assert entry.training["warmup_ratio"] == 0.1
