"""Every text said to people is a literal, is translated, and takes the same values in both languages."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

import tunedeck
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import language, listing, nearest, say, set_language
from tunedeck.core.toml import parse_toml

PACKAGE = Path(tunedeck.__file__).parent
LOCALE = ("TUNEDECK_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@dataclass(frozen=True)
class Call:
    """One `say(...)` in the source: where, its text (None when it is no literal), and the values it is given."""

    place: str
    text: str | None
    values: frozenset[str | None]


@cache
def calls() -> tuple[Call, ...]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) == "say":
                first = node.args[0] if node.args else None
                literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
                found.append(
                    Call(
                        f"{file.relative_to(PACKAGE.parent).as_posix()}:{node.lineno}",
                        first.value if literal else None,
                        frozenset(keyword.arg for keyword in node.keywords),
                    )
                )
    return tuple(found)


@cache
def entries() -> tuple[tuple[str, str], ...]:
    table = parse_toml((PACKAGE / "core" / "messages_zh.toml").read_text(encoding="utf-8"))
    return tuple((entry["en"], entry["zh"]) for entry in table["message"])


def _name(function: ast.expr) -> str | None:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def fields(text: str) -> set[tuple[str, str | None, str | None]]:
    """(name, conversion, format spec) of every replacement field."""
    return {(name, conversion, spec) for _, name, spec, conversion in Formatter().parse(text) if name is not None}


def names_in(text: str) -> set[str]:
    return {name for name, *_ in fields(text)}


def assert_none(found: Iterable[str]) -> None:
    lines = list(found)
    assert not lines, "\n".join(lines)


def test_every_text_is_a_literal() -> None:
    assert len(calls()) > 100
    assert_none(call.place for call in calls() if call.text is None)


def test_every_text_is_given_the_values_it_names_and_no_others() -> None:
    assert_none(f"{call.place}: {call.text}" for call in calls() if call.text and names_in(call.text) != call.values)


def test_every_text_has_a_chinese_translation() -> None:
    translated = {english for english, _ in entries()}
    assert_none(f"{call.place}: {call.text}" for call in calls() if call.text and call.text not in translated)


def test_no_translation_is_left_over_or_empty() -> None:
    said = {call.text for call in calls()}
    assert_none(english for english, chinese in entries() if english not in said or not chinese.strip())


def test_no_text_is_translated_twice() -> None:
    assert_none(english for english, count in Counter(english for english, _ in entries()).items() if count > 1)


def test_both_languages_take_the_same_values_in_the_same_form() -> None:
    assert_none(english for english, chinese in entries() if fields(english) != fields(chinese))


def test_a_text_is_said_in_the_chosen_language() -> None:
    assert say("{path} is empty", path="a.csv") == "a.csv is empty"
    set_language("zh")
    assert language() == "zh"
    assert say("{path} is empty", path="a.csv") == "a.csv 是空文件"


def test_a_text_without_a_translation_is_said_in_english() -> None:
    set_language("zh")
    assert say("{count} mangoes", count=3) == "3 mangoes"


def test_an_unknown_language_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown language 'fr'.*en, zh"):
        set_language("fr")
    assert language() == "en"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LC_MESSAGES": "zh_TW.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"TUNEDECK_LANG": "zh", "LC_ALL": "en_US.UTF-8"}, "zh"),
        ({"TUNEDECK_LANG": "en", "LC_ALL": "zh_CN.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"TUNEDECK_LANG": "", "LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "C"}, "en"),
        ({}, "en"),
    ],
    ids=str,
)
def test_the_language_is_that_of_the_environment(environment: dict[str, str], expected: str) -> None:
    others = {name: value for name, value in os.environ.items() if name not in LOCALE}
    told = subprocess.run(
        [sys.executable, "-c", "from tunedeck.core.i18n import language; print(language())"],
        env={**others, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == expected


def test_a_close_name_is_suggested_and_a_far_one_is_not() -> None:
    assert nearest("lorra", ["lora", "bottleneck"]) == " (did you mean 'lora'?)"
    assert nearest("zebra", ["lora", "bottleneck"]) == ""
    assert nearest("lora", []) == ""
    set_language("zh")
    assert nearest("lorra", ["lora", "bottleneck"]) == "（是不是想写 'lora'？）"


def test_names_are_listed_in_one_line() -> None:
    assert listing(["a", "b", 3]) == "a, b, 3"
    assert listing(name for name in "xy") == "x, y"
    assert listing([]) == "none"
    set_language("zh")
    assert listing([]) == "无"
