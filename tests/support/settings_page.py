"""docs/reference/settings.md from the JSON schema of run files; `make pages` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunedeck.training.schema import run_schema

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEAD = """# Settings of a run

Every key of a run file, with its type and its default. This page is generated from `tunedeck schema`; `tunedeck train --help` shows the same keys as
flags. How a run file is used is in [training.md](../guides/training.md).

An editor that speaks the YAML language server (VS Code with the YAML extension, Neovim, Emacs, IntelliJ) completes and checks run files against the schema:

    tunedeck schema > run.schema.json

and, as the first line of the run file:

```yaml
# yaml-language-server: $schema=run.schema.json
```
"""


def settings_page() -> str:
    """The whole page."""
    schema = run_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    parts = [HEAD, "## The run\n\n" + _table(properties, schema["required"])]
    data = definitions["DataSettings"]
    parts.append("## data\n\n" + _table(data["properties"], data["required"]))
    parts.append("## training\n\n" + _table(definitions["TrainingSettings"]["properties"], []))
    for group in ("task", "method"):
        names = [one["$ref"].rpartition("/")[2] for one in properties[group]["oneOf"] if "$ref" in one]
        for name in names:
            own = definitions[name]
            kinds = own["properties"]["kind"]["enum"]
            also = f" Also: {', '.join(f'`{kind}`' for kind in kinds[1:])}." if kinds[1:] else ""
            rest = {key: one for key, one in own["properties"].items() if key != "kind"}
            parts.append(f"## {group}: {kinds[0]}\n\n{own['description']}{also}\n\n" + _table(rest, []))
    return "\n".join(parts)


def _table(properties: Mapping[str, Any], required: list[str]) -> str:
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for key, one in properties.items():
        if not one.get("deprecated"):
            default = (
                "required" if key in required else f"`{json.dumps(one.get('default'))}`" if "default" in one else ""
            )
            rows.append(f"| `{key}` | {_type(one)} | {default} | {one.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _type(one: Mapping[str, Any]) -> str:
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(_type(part) for part in one["anyOf"]))
    if "oneOf" in one:
        return "a name or a group"
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    if one.get("type") == "array":
        return "list" if "type" not in one.get("items", {}) else f"list of {_type(one['items'])}"
    return {"object": "group", "null": "null", None: "group"}.get(one.get("type"), str(one.get("type")))


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
