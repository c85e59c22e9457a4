"""Reasons why JSON and YAML cannot be read: the place, and words of our own that have a translation."""

from __future__ import annotations

import json

import pytest
import yaml

from tunedeck.core.i18n import set_language
from tunedeck.core.syntax import json_cause, json_reason, yaml_reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1,\n b: 2}', "line 2, column 2: a key in double quotes is missing"),
        ("[1 2]", "line 1, column 4: a comma or a closing bracket is missing"),
        ('{"a" 1}', "line 1, column 6: a colon is missing after the key"),
        ('{"a": b}', "line 1, column 7: a value is missing, or a text has no double quotes"),
        ('["\\d"]', "line 1, column 3: a backslash that JSON does not know; write \\\\ for a backslash"),
        ("{} x", "line 1, column 4: something follows after the end of the value"),
        ("[" * 200_000, "its lists or objects are nested too deeply"),
    ],
)
def test_the_reason_why_json_is_refused_has_line_column_and_cause(text: str, reason: str) -> None:
    with pytest.raises((ValueError, RecursionError)) as caught:
        json.loads(text)
    assert json_reason(caught.value) == reason
    assert reason.endswith(json_cause(caught.value))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: a\n  data: [x\n", "line 2, column 7: a key is not allowed here"),
        ("a: [1, 2\n", "line 2, column 1: a comma, a quote or a closing bracket is missing"),
        ("a:\n\t- b", "line 2, column 1: a tab is not allowed here; indent with spaces"),
        ("a: \x01", "it has a character that YAML does not allow"),
    ],
)
def test_the_reason_why_yaml_is_refused_has_line_column_and_cause(text: str, reason: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_load(text)
    assert yaml_reason(caught.value).startswith(reason)


@pytest.mark.parametrize("text", ['{"a" 1}', '["\t"]', '["a', "nul", '["\\u12"]'])
def test_no_english_is_left_in_the_chinese_reason(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    set_language("zh")
    try:
        assert not any(
            word.isascii() and word.isalpha() and len(word) > 4 for word in json_reason(caught.value).split()
        )
    finally:
        set_language("en")
