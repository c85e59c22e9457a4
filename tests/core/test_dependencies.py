"""Every package that the code imports by itself is declared, not left to come along with another."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tunedeck.core.toml import parse_toml

ROOT = Path(__file__).parents[2]
WITH_ANOTHER = {"pydantic_core": "pydantic"}
"""What a declared package installs in the version it needs."""
USED_WHERE_INSTALLED = {"modelscope"}
"""Never needed; the messages that name it say how to install it."""


def normalised(requirement: str) -> str:
    """The name of a requirement, as the package index compares names."""
    return re.sub("[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]).lower()


def imported() -> set[str]:
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"tunedeck"} - USED_WHERE_INSTALLED


def test_every_package_that_the_code_imports_is_a_declared_dependency() -> None:
    project = parse_toml((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name, extra in project["optional-dependencies"].items() if name != "dev" for one in extra]
    declared = {normalised(one) for one in (*project["dependencies"], *extras)}
    packages = packages_distributions()
    undeclared = {
        module
        for module in imported()
        if declared.isdisjoint(normalised(one) for one in packages.get(module, [WITH_ANOTHER.get(module, module)]))
        and normalised(WITH_ANOTHER.get(module, module)) not in declared
    }
    assert undeclared == set()


def test_what_an_extra_installs_the_tests_have_too() -> None:
    extras = parse_toml((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in extras.keys() - {"docs", "ray"}:  # `make docs` installs its own; ray takes 240 MB
        assert {normalised(one) for one in extras[name]} <= {normalised(one) for one in extras["dev"]}, name
