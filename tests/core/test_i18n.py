"""Every text said to people is a literal, is translated, and takes the same values in both languages."""

from __future__ import annotations

import ast
import gettext
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter

import pytest
from babel.messages import Message
from support.messages import CATALOGUES, read_catalogue, update_catalogue

import tunedeck
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import language, listing, nearest, say, say_again, say_plural, set_language
from tunedeck.core.translations import compiled, translations

PACKAGE = Path(tunedeck.__file__).parent
LOCALE = ("TUNEDECK_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@dataclass(frozen=True)
class Call:
    """One call of `say` or `say_plural`: where it is, its texts (none if one is not a literal) and its values."""

    place: str
    texts: tuple[str, ...]
    values: frozenset[str | None]


TEXTS = {"say": 1, "say_plural": 2}


@cache
def calls() -> tuple[Call, ...]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (count := TEXTS.get(_name(node.func) or "")):
                literals = [value.value for value in node.args if isinstance(value, ast.Constant)]
                found.append(
                    Call(
                        f"{file.relative_to(PACKAGE.parent).as_posix()}:{node.lineno}",
                        tuple(map(str, literals)) if len(literals) == len(node.args) == count else (),
                        frozenset(keyword.arg for keyword in node.keywords),
                    )
                )
    return tuple(found)


@cache
def entries() -> tuple[Message, ...]:
    return tuple(message for message in read_catalogue(CATALOGUES["zh"]) if message.id)


def forms(value: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


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
    assert_none(call.place for call in calls() if not call.texts)


def test_every_text_is_given_the_values_it_names_and_no_others() -> None:
    for call in calls():
        named = set[str]().union(*map(names_in, call.texts)) | ({"count"} if len(call.texts) == 2 else set())
        assert named == call.values, f"{call.place}: {call.texts}"


def test_every_text_has_a_chinese_translation() -> None:
    translated = {forms(entry.id) for entry in entries() if all(text.strip() for text in forms(entry.string))}
    assert_none(f"{call.place}: {call.texts}" for call in calls() if call.texts not in translated)


def test_no_translation_is_left_over_or_guessed() -> None:
    said = {call.texts for call in calls()}
    assert_none(str(entry.id) for entry in entries() if forms(entry.id) not in said or entry.fuzzy)
    assert not read_catalogue(CATALOGUES["zh"]).obsolete


def test_both_languages_take_the_same_values_in_the_same_form() -> None:
    for entry in entries():
        english = forms(entry.id)[-1]
        assert_none(english for chinese in forms(entry.string) if fields(english) != fields(chinese))


def test_a_text_of_an_import_is_said_again_in_the_language_of_now() -> None:
    imported = {}
    for name in ("en", "zh"):
        set_language(name)
        imported[name] = say("LoRA rank")
    assert imported["en"] != imported["zh"]
    for name, text in imported.items():
        set_language(name)
        assert [say_again(one) for one in imported.values()] == [text, text]
        assert say_again("no text of the catalogue") == "no text of the catalogue"


def test_the_catalogue_is_as_make_messages_writes_it(tmp_path: Path) -> None:
    copy = tmp_path / "zh" / "LC_MESSAGES" / "tunedeck.po"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(CATALOGUES["zh"], copy)
    update_catalogue(copy)
    assert copy.read_text(encoding="utf-8") == CATALOGUES["zh"].read_text(encoding="utf-8")


def test_the_catalogue_is_read_as_babel_reads_it() -> None:
    for entry in entries():
        first, *more = forms(entry.id)
        read = translations("zh").ngettext(first, more[0], 2) if more else translations("zh").gettext(first)
        assert read == forms(entry.string)[0]


def test_a_fuzzy_entry_is_not_used_and_lines_and_plural_forms_are_joined() -> None:
    catalogue = [
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
        '"Plural-Forms: nplurals=2; plural=n != 1;\\n"',
        '#, fuzzy, python-brace-format\nmsgid "tea"\nmsgstr "Kaffee"',
        'msgid ""\n"one\\n"\n"two"\nmsgstr ""\n"eins\\n"\n"\\"zwei\\""',
        'msgid "{count} cup"\nmsgid_plural "{count} cups"\nmsgstr[0] "{count} Tasse"\nmsgstr[1] "{count} Tassen"',
        '#~ msgid "water"\n#~ msgstr "Wasser"',
    ]
    german = gettext.GNUTranslations(io.BytesIO(compiled("\n\n".join(catalogue))))
    assert [german.gettext(text) for text in ("tea", "one\ntwo", "water")] == ["tea", 'eins\n"zwei"', "water"]
    assert [german.ngettext("{count} cup", "{count} cups", count) for count in (1, 2)] == [
        "{count} Tasse",
        "{count} Tassen",
    ]


def test_a_text_is_said_in_the_chosen_language() -> None:
    assert say("{path} is empty", path="a.csv") == "a.csv is empty"
    set_language("zh")
    assert language() == "zh"
    assert say("{path} is empty", path="a.csv") == "a.csv 是空文件"


def test_a_text_without_a_translation_is_said_in_english() -> None:
    set_language("zh")
    assert say("{count} mangoes", count=3) == "3 mangoes"


def test_a_number_chooses_the_form() -> None:
    assert say_plural("{count} {thing}", "{count} {thing}s", count=1, thing="mango") == "1 mango"
    assert say_plural("{count} {thing}", "{count} {thing}s", count=0, thing="mango") == "0 mangos"


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
