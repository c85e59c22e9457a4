"""The documentation: twins, blocks that hold, and a page for every command, option, setting and public name."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import reference
import typer
import yaml
from support.settings_page import settings_page

import tunedeck as td
from tunedeck.cli.app import COMMANDS, app, loaded
from tunedeck.core.errors import TunedeckError
from tunedeck.core.glossary import error_codes, terms
from tunedeck.core.i18n import set_language
from tunedeck.server.app import api_document
from tunedeck.training.schema import run_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("commands", "errors", "glossary", "http", "python", "settings")
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.name.split(".")[0] not in GENERATED)
ENGLISH = [page for page in PAGES if not page.name.endswith(".zh.md")]
TEXTS = [*PAGES, DOCS / "reference" / "settings.md", ROOT / "README.md", ROOT / "README.zh.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLUG_IN = ("--method scale", "lora,scale", "scale:", "--score stars")
"""Options of the packages that docs/guides/plug-ins.md describes; tests/contract installs and runs those."""


def blocks(*languages: str) -> list[Any]:
    """Return the blocks of code in these languages with the page that has each."""
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in TEXTS
        for number, (language, text) in enumerate(BLOCK.findall(page.read_text("utf-8")))
        if language in languages
    ]


def names(page: Path) -> tuple[list[str], list[str]]:
    """Return the blocks and the levels of the headings of a page, which its translation must have too."""
    text = page.read_text("utf-8")
    taken = re.sub(r"^<!-- code: \S+\.(\w+) -->$", r"```\1\n```", text, flags=re.MULTILINE)  # from the English page
    found = [{"py": "python"}.get(language, language) for language, _ in BLOCK.findall(taken)]
    return found, re.findall(r"^(#+) ", BLOCK.sub("", text), re.MULTILINE)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if not page.name.endswith(".zh.md")], ids=lambda page: page.stem
)
def test_a_page_has_a_chinese_twin_with_the_same_sections_and_blocks(page: Path) -> None:
    twin = page.with_suffix(".zh.md")
    assert twin.exists(), f"write {twin.relative_to(ROOT)}"
    assert names(page) == names(twin)


def test_every_page_has_a_place_in_the_site() -> None:
    text = re.sub(r"!!python/\S+|!ENV", "", (ROOT / "mkdocs.yml").read_text("utf-8"))
    listed = re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"]))
    here = {str(page.relative_to(DOCS)) for page in ENGLISH}
    assert set(listed) == here | {f"reference/{name}.md" for name in GENERATED}


@cache
def command(*words: str) -> Any:
    """Return the command of these words."""
    found: Any = loaded(words[0]) if words[0] in COMMANDS else typer.main.get_command(app)
    for word in words[1:]:
        found = found.commands[word]
    return found


def calls(text: str) -> list[list[str]]:
    """Return the arguments of each call of tunedeck in a block of shell lines."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        at = next((n for n, word in enumerate(words) if word in ("tunedeck", ".venv/bin/tunedeck")), None)
        if at is not None and words[0] != "pip":
            found.append(words[at + 1 :])
    return found


@pytest.mark.parametrize("text", blocks("sh", "console"))
def test_the_commands_of_the_pages_have_the_options_that_they_are_given(text: str) -> None:
    for words in calls(text):
        if any(part in " ".join(words) for part in PLUG_IN):
            continue
        depth = 2 if words[0] in ("adapters", "export", "data") else 1
        one = command(*words[:depth])
        rest = words[depth:]
        rest = rest[: rest.index(">")] if ">" in rest else rest
        parser = one.make_parser(one.make_context(words[0], [], resilient_parsing=True))
        parser.parse_args(rest)


@pytest.mark.parametrize("text", blocks("python"))
def test_the_code_of_the_pages_is_valid_and_uses_public_names_and_their_arguments(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "td":
                assert node.attr in td.__all__, node.attr
            if node.value.id == "deck":
                assert hasattr(td.Deck, node.attr) or node.attr in ("model", "task", "tokenizer"), node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            check_arguments(node, node.func)


def check_arguments(call: ast.Call, called: ast.Attribute) -> None:
    """The keyword arguments of `td.name(...)` and `deck.name(...)` are parameters of it."""
    if not isinstance(called.value, ast.Name) or called.value.id not in ("td", "deck"):
        return
    owner = td if called.value.id == "td" else td.Deck
    known = inspect.signature(getattr(owner, called.attr)).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        assert {one.arg for one in call.keywords} - {None} <= set(known), called.attr


def test_every_command_option_and_public_name_has_a_page() -> None:
    page = reference.commands_page()
    for name, one in reference.commands():
        section = page.split(f"## {name}\n")[1].split("\n## ")[0]
        for option in one.params:
            if option.name != "help":
                shown = [*option.opts, *option.secondary_opts, option.name]
                assert any(f"`{one}`" in section for one in shown), f"{name}: {shown}"
    python = reference.python_page()
    assert [name for name in td.__all__ if f".{name}\n" not in python] == []


def test_every_setting_route_and_error_has_a_page() -> None:
    settings = settings_page()
    for definition in run_schema()["$defs"].values():
        for key, one in definition["properties"].items():
            assert one.get("deprecated") or key == "kind" or f"| `{key}` |" in settings, key
    http = reference.http_page()
    for path, methods in api_document()["paths"].items():
        assert all(f"## {method.upper()} {path}\n" in http for method in methods)
    for page in ("exit-codes.md", "exit-codes.zh.md"):
        text = (DOCS / "reference" / page).read_text("utf-8")
        assert all(one.__name__ in text for one in subclasses(TunedeckError))


@pytest.mark.parametrize("chosen", ["en", "zh"])
def test_every_term_and_error_code_has_a_place_that_its_references_lead_to(chosen: str) -> None:
    set_language(chosen)
    glossary, errors = reference.glossary_page(), reference.errors_page()
    for term in terms():
        assert f"{term.text}\n" in glossary
        assert term.zh in glossary
        assert term.name in glossary
    anchors = re.findall(r"\{ #(\S+) \}", glossary)
    assert len(anchors) == len(set(anchors)) == len(terms())
    assert set(re.findall(r"\]\(#(\S+?)\)", glossary)) <= set(anchors)
    for code in error_codes():
        assert f"## {code.code}\n\n{code.text}\n" in errors
    assert all(f"`{one.__name__}`" in errors for one in subclasses(TunedeckError))


def subclasses(one: type[Exception]) -> list[type[Exception]]:
    """Return the subclasses of an error in its module, theirs included."""
    found: list[type[Exception]] = []
    for below in one.__subclasses__():
        if below.__module__ == one.__module__:
            found += [below, *subclasses(below)]
    return found
