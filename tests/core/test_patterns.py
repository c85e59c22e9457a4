"""Patterns of others are matched as `re` does, and never for long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.patterns import fullmatch, time_limit

SLOW, PATH = r"(\w|\w\w|\.|\.\w)+[XY]", "bert.encoder.layer.0.attention.self.query"
PARTS = (
    *(r"\.", r".*\.", r"\d+", r"\d", "layer", "layers", r"layers\.(0|1|2)", "self_attn", "mlp", "model"),
    *("(?:q|k|v)_proj", "(q_proj|v_proj)", "[qkv]_proj", "query", "down_proj$", "^model", ".*", ".+?", "(.*)"),
    *("(?!lm_head)", "(?=model)", r"(?<=\.)", r"(?<!\.)", "(?:.*)?", r"\w+", "[^.]+", "(?i:QUERY)", "x{1,3}", "a&&b"),
)
PATHS = st.lists(
    st.sampled_from(
        ["model", "layers", "layer", "0", "11", "self_attn", "q_proj", "query", "QUERY", "mlp", "x", "lm_head"]
    ),
    min_size=1,
    max_size=6,
).map(".".join)


@settings(max_examples=100, deadline=None)
@given(pattern=st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join), path=PATHS)
def test_a_pattern_matches_what_it_matches_in_re(pattern: str, path: str) -> None:
    assert fullmatch(pattern, path) == (re.fullmatch(pattern, path) is not None)


def test_a_pattern_that_takes_for_ever_is_stopped_and_named() -> None:
    with pytest.raises(ConfigError, match=r"takes more than 0\.1 s to match.*--pattern-time"), time_limit(0.1):
        fullmatch(SLOW, PATH)


def test_the_time_is_that_of_all_patterns_together() -> None:
    with time_limit(0.1):
        with pytest.raises(ConfigError):
            fullmatch(SLOW, PATH)
        with pytest.raises(ConfigError, match="'a' takes more than"):
            fullmatch("a", "a")
    assert fullmatch("a", "a")


def test_a_pattern_that_was_stopped_leaves_no_time_even_where_other_threads_have_used_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    with time_limit(0.1):
        with pytest.raises(ConfigError):
            fullmatch(SLOW, PATH)
        with pytest.raises(ConfigError, match="'a' takes more than"):
            fullmatch("a", "a")


def test_a_limit_inside_another_changes_nothing() -> None:
    with time_limit(0.1), time_limit(1000), pytest.raises(ConfigError, match=r"0\.1 s"):
        fullmatch(SLOW, PATH)


def test_what_is_no_pattern_or_too_long_is_refused() -> None:
    with pytest.raises(TargetError, match=r"'\(' is not a regular expression"):
        fullmatch("(", "a")
    with pytest.raises(TargetError, match="not a regular expression"):
        fullmatch("(" * 5000 + ")" * 5000, "a")
    with pytest.raises(ConfigError, match="20000 characters"):
        fullmatch("a" * 20_000, "a")
