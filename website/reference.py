"""Writes the pages of docs/reference/ that are made from the code, in the language that TUNEDECK_LANG names."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tunedeck
from tunedeck.cli.app import COMMANDS, loaded
from tunedeck.core.errors import TunedeckError
from tunedeck.core.glossary import Term, error_codes, terms
from tunedeck.core.i18n import language
from tunedeck.server.app import api_document

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HTTP_METHODS = ("get", "post", "put", "patch", "delete")
ZH = {
    "Commands": "命令",
    "Every command with its arguments and options.": ("所有命令及其参数和选项，由代码生成。"),
    "option": "选项",
    "default": "默认值",
    "meaning": "含义",
    "required": "必填",
    "Python API": "Python 接口",
    "Every public name of `tunedeck`. The docstrings are in English.": (
        "`tunedeck` 的所有公开名字。文档字符串是英文的。"
    ),
    "HTTP API": "HTTP 接口",
    "From the server's OpenAPI document, `/openapi.json`. A server has the routes of its task.": (
        "由服务器的 OpenAPI 文档 `/openapi.json` 生成。服务器只提供其任务的路由。"
    ),
    "status": "状态码",
    "answer": "响应",
    "field": "字段",
    "type": "类型",
    "Bodies": "请求体与响应体",
    "Body": "请求体",
    "Glossary": "术语表",
    "The terms of this documentation in English and Chinese; `tunedeck explain WORD` prints them too.": (
        "本文档使用的术语，中英文对照；`tunedeck explain 词` 也会打印。"
    ),
    "Also": "又称",
    "See also": "另见",
    "Errors by code": "按错误代码排错",
    "Every error message ends with one of these codes; `tunedeck explain TD-E002` prints this text.": (
        "每条错误消息末尾都有一个代码；`tunedeck explain TD-E002` 会打印下面的说明。"
    ),
    "In Python": "在 Python 中",
}


def word(text: str) -> str:
    """Translate a text of the frame of these pages; what the code says about itself is translated there."""
    return ZH[text] if language() == "zh" else text


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its whole name."""
    for name in COMMANDS:
        yield from _below(f"tunedeck {name}", loaded(name))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    parts = getattr(command, "commands", {})
    if not parts:
        yield name, command
    for part, one in parts.items():
        yield from _below(f"{name} {part}", one)


def parameters(command: Any) -> list[Any]:
    """The arguments and options of a command, those of --help-all included."""
    return [one for one in command.params if one.name != "help"]


def commands_page() -> str:
    """The page of all commands."""
    parts = [f"# {word('Commands')}\n\n{word('Every command with its arguments and options.')}"]
    for name, command in commands():
        text = f"## {name}\n\n{(command.help or '').strip()}\n\n```text\n{name} {_usage(command)}\n```"
        rows = [_row(one) for one in parameters(command)]
        if rows:
            head = f"| {word('option')} | {word('default')} | {word('meaning')} |\n|---|---|---|\n"
            text += "\n\n" + head + "\n".join(rows)
        parts.append(text)
    return "\n\n".join(parts) + "\n"


def _usage(command: Any) -> str:
    return " ".join(command.collect_usage_pieces(command.make_context(command.name, [], resilient_parsing=True)))


def _row(one: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts) if name.startswith("-"))
    default = word("required") if one.required else ""
    if not one.required and one.default not in (None, False, "", ()) and not callable(one.default):
        default = f"`{one.default}`"
    return f"| {names or f'`{one.name}`'} | {default} | {_cell(getattr(one, 'help', '') or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def python_page() -> str:
    """The page of all public names, for mkdocstrings."""
    title, said = word("Python API"), word("Every public name of `tunedeck`. The docstrings are in English.")
    names = "\n".join(f"::: tunedeck.{tunedeck._HOME[name]}.{name}\n" for name in tunedeck.__all__)
    return f"# {title}\n\n{said}\n\n{names}"


def http_page() -> str:
    """The page of all routes and bodies."""
    document = api_document()
    said = "From the server's OpenAPI document, `/openapi.json`. A server has the routes of its task."
    parts = [f"# {word('HTTP API')}\n\n{word(said)}"]
    for path, methods in document["paths"].items():
        parts += [_route(f"{method.upper()} {path}", methods[method]) for method in HTTP_METHODS if method in methods]
    parts.append(f"## {word('Bodies')}")
    parts += [_body(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n\n".join(parts) + "\n"


def _route(title: str, operation: Mapping[str, Any]) -> str:
    text = f"## {title}\n\n{operation.get('description', '')}"
    content = operation.get("requestBody", {}).get("content", {})
    for one in content.values():
        text += f"\n\n{word('Body')}: {_type(one['schema'])}"
    rows = [f"| {status} | {_cell(one['description'])} |" for status, one in operation["responses"].items()]
    return f"{text}\n\n| {word('status')} | {word('answer')} |\n|---|---|\n" + "\n".join(rows)


def _body(name: str, schema: Mapping[str, Any]) -> str:
    text = f"### {name}\n\n{schema.get('description', '')}"
    required = schema.get("required", [])
    rows = [
        f"| `{field}` | {_type(one)} | {word('required') if field in required else _default(one)} | "
        f"{_cell(one.get('description', ''))} |"
        for field, one in schema.get("properties", {}).items()
    ]
    if rows:
        text += f"\n\n| {word('field')} | {word('type')} | {word('default')} | {word('meaning')} |\n|---|---|---|---|\n"
        text += "\n".join(rows)
    return text


def _default(one: Mapping[str, Any]) -> str:
    return f"`{one['default']}`" if one.get("default") is not None else ""


def _type(one: Mapping[str, Any]) -> str:
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in one:
            return " or ".join(dict.fromkeys(_type(part) for part in one[key]))
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if one.get("type") == "array":
        return f"list of {_type(one.get('items', {}))}"
    return str(one.get("const", one.get("type", "any")))


def glossary_page() -> str:
    """The page of all terms in both languages."""
    said = "The terms of this documentation in English and Chinese; `tunedeck explain WORD` prints them too."
    found = sorted(terms(), key=lambda term: term.name.lower())
    return "\n\n".join([f"# {word('Glossary')}\n\n{word(said)}", *map(_term, found)]) + "\n"


def _term(term: Term) -> str:
    title = term.name if term.zh == term.name else f"{term.name} · {term.zh}"
    text = f"## {title} {{ #{_anchor(term.name)} }}\n\n{_cell(term.text)}"
    if term.aliases:
        text += f"\n\n{word('Also')}: {', '.join(term.aliases)}"
    if term.see:
        text += f"\n\n{word('See also')}: " + ", ".join(f"[{name}](#{_anchor(name)})" for name in term.see)
    return text


def _anchor(name: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in name.lower())


def errors_page() -> str:
    """The page of all error codes."""
    said = "Every error message ends with one of these codes; `tunedeck explain TD-E002` prints this text."
    classes: dict[str, type[TunedeckError]] = {one.code: one for one in _tree(TunedeckError)}
    parts = [
        f"## {one.code}\n\n{_cell(one.text)}\n\n{word('In Python')}: `{classes[one.code].__name__}`"
        for one in error_codes()
    ]
    return "\n\n".join([f"# {word('Errors by code')}\n\n{word(said)}", *parts]) + "\n"


def _tree(error: type[TunedeckError]) -> Iterator[type[TunedeckError]]:
    yield error
    for one in error.__subclasses__():
        yield from _tree(one)


PAGES = {
    "commands": commands_page,
    "python": python_page,
    "http": http_page,
    "glossary": glossary_page,
    "errors": errors_page,
}


def main() -> None:
    """Write the pages into docs/reference."""
    ending = ".zh.md" if language() == "zh" else ".md"
    for name, page in PAGES.items():
        (FOLDER / f"{name}{ending}").write_text(page(), encoding="utf-8")
    print(f"{language()}: {', '.join(PAGES)}", file=sys.stderr)


if __name__ == "__main__":
    main()
