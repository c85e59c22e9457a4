"""docs/reference/settings.md from the JSON schema of run files; `make pages` writes it, `make docs` the Chinese one."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunedeck.core.i18n import language
from tunedeck.training.schema import run_schema

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEAD = {
    "en": """# Settings of a run

Every key of a run file with its type and its default. This page is generated from `tunedeck schema`; `tunedeck train
--help-all` shows the same keys as options. How a run file is used is described in [Training](../guides/training.md).

An editor with the YAML language server (VS Code with the YAML extension, Neovim, Emacs, IntelliJ) completes and checks
run files with the schema:

```sh
tunedeck schema > run.schema.json
```

and, as the first line of the run file:

```yaml
# yaml-language-server: $schema=run.schema.json
```
""",
    "zh": """# 运行的设置

运行文件的所有键、类型和默认值。本页由 `tunedeck schema` 生成；`tunedeck train --help-all` 里有同样的键对应的选项。
运行文件怎么用，见[训练](../guides/training.md)。

带 YAML 语言服务器的编辑器（装了 YAML 扩展的 VS Code、Neovim、Emacs、IntelliJ）可以用这份 schema 补全和检查运行文件：

```sh
tunedeck schema > run.schema.json
```

运行文件的第一行写上：

```yaml
# yaml-language-server: $schema=run.schema.json
```
""",
}
WORDS = {
    "en": ("The run", "Also", "key", "type", "default", "meaning", "required", " or ", "a name or a group", "list"),
    "zh": ("运行", "也写作", "键", "类型", "默认值", "含义", "必填", " 或 ", "名字或一组设置", "列表"),
}


def word(english: str) -> str:
    """Translate a word of this page's frame; the settings' descriptions are translated where they are defined."""
    return WORDS[language()][WORDS["en"].index(english)]


def settings_page() -> str:
    """The whole page."""
    schema = run_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    parts = [HEAD[language()], f"## {word('The run')}\n\n" + _table(properties, schema["required"])]
    data = definitions["DataSettings"]
    parts.append("## data\n\n" + _table(data["properties"], data["required"]))
    parts.append("## training\n\n" + _table(definitions["TrainingSettings"]["properties"], []))
    for group in ("task", "method"):
        names = [one["$ref"].rpartition("/")[2] for one in properties[group]["oneOf"] if "$ref" in one]
        for name in names:
            own = definitions[name]
            kinds = own["properties"]["kind"]["enum"]
            also = f" {word('Also')}: {', '.join(f'`{kind}`' for kind in kinds[1:])}." if kinds[1:] else ""
            rest = {key: one for key, one in own["properties"].items() if key != "kind"}
            about = textwrap.fill(own["description"] + also, 120, break_long_words=False, break_on_hyphens=False)
            parts.append(f"## {group}: {kinds[0]}\n\n{about}\n\n" + _table(rest, []))
    return "\n".join(parts)


def _table(properties: Mapping[str, Any], required: list[str]) -> str:
    rows = [f"| {word('key')} | {word('type')} | {word('default')} | {word('meaning')} |", "|---|---|---|---|"]
    for key, one in properties.items():
        if not one.get("deprecated"):
            default = (
                word("required")
                if key in required
                else f"`{json.dumps(one.get('default'))}`"
                if "default" in one
                else ""
            )
            rows.append(f"| `{key}` | {_type(one)} | {default} | {one.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _type(one: Mapping[str, Any]) -> str:
    if "anyOf" in one:
        return word(" or ").join(dict.fromkeys(_type(part) for part in one["anyOf"]))
    if "oneOf" in one:
        return word("a name or a group")
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    if one.get("type") == "array":
        return word("list") + ("" if "type" not in one.get("items", {}) else f" ({_type(one['items'])})")
    return {"object": "group", "null": "null", None: "group"}.get(one.get("type"), str(one.get("type")))


if __name__ == "__main__":
    page = PAGE.with_suffix(".zh.md") if language() == "zh" else PAGE
    page.write_text(settings_page(), encoding="utf-8")
