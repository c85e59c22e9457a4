"""What a caller asks for is checked: a value among those allowed, packages that are installed."""

from __future__ import annotations

import pytest

from tunedeck.core.checks import HUB_ID, one_of, require
from tunedeck.core.errors import ConfigError, ModelError


def test_a_value_among_those_allowed_is_given_back_and_another_names_the_nearest() -> None:
    assert one_of("task", "generate", ("classify", "generate")) == "generate"
    with pytest.raises(ConfigError, match=r"task must be one of classify, generate, got 'generat' \(did you mean 'gen"):
        one_of("task", "generat", ("classify", "generate"))


def test_missing_packages_are_named_with_what_pip_installs() -> None:
    require("testing", ["pytest"], "pytest")
    with pytest.raises(ModelError, match=r"x needs the package no_such_one; run: pip install 'a\[b\]'; or do without"):
        require("x", ["pytest", "no_such_one"], "'a[b]'", otherwise="or do without", error=ModelError)


def test_a_hub_id_is_owner_and_name() -> None:
    assert HUB_ID.fullmatch("Qwen/Qwen2.5-0.5B")
    assert not HUB_ID.fullmatch("a/b/c")
