"""The JSON schema of a run file, for editors: every key with its description, type, default and allowed values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from tunedeck.core.i18n import say
from tunedeck.core.task_settings import CONFIGS
from tunedeck.methods.registry import METHODS, SHORT_NAMES
from tunedeck.training.config import RunConfig
from tunedeck.training.earlier_names import RENAMED

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def run_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a run file, with the settings of every method and task that is
    installed.

    A run file that this schema accepts is read without an error about its keys; ranges within a method's or a task's
    settings are checked when the run begins.
    """
    schema: dict[str, Any] = RunConfig.model_json_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    _rename(definitions["TrainingSettings"]["properties"])
    short_names = {kind: [name for name, fixed in SHORT_NAMES.items() if fixed["kind"] == kind] for kind in METHODS}
    groups = {
        "method": {kind: _settings(kind, config, short_names[kind]) for kind, config in METHODS.items()},
        "task": {kind: _settings(kind, config, []) for kind, config in CONFIGS.items()},
    }
    for group, kinds in groups.items():
        names = {f"{group}_{kind}": one for kind, one in kinds.items()}
        definitions |= names
        default = next(iter(kinds))
        names[f"{group}_{default}"]["required"] = []  # a group without a kind is of the default one
        properties[group] = {
            "title": properties[group]["title"],
            "description": properties[group]["description"],
            "default": default,
            "oneOf": [
                {"type": "string", "enum": _spellings(names.values())},
                *({"$ref": f"#/$defs/{name}"} for name in names),
            ],
        }
    properties["training"]["default"] = {}
    properties["jobs"] = _jobs(properties, definitions)
    schema["required"] = ["model"]  # the data may be given in each job
    return {"$schema": DRAFT, **schema, "title": "Tunedeck run file", "$defs": definitions, "properties": properties}


def _settings(kind: str, cls: type[Any], short_names: Iterable[str]) -> dict[str, Any]:
    """Return the settings of one method or task, `kind` first."""
    found = TypeAdapter(cls).json_schema()
    assert "$defs" not in found, kind
    name = {"description": say("chooses these settings"), "enum": [kind, *short_names]}
    return {
        "title": found["title"],
        "description": (cls.__doc__ or "").partition("\n")[0],
        "type": "object",
        "additionalProperties": False,
        "required": ["kind"],
        "properties": {"kind": name, **found["properties"]},
    }


def _spellings(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    names = [name for one in settings for name in one["properties"]["kind"]["enum"]]
    return [*names, *(name.replace("_", "-") for name in names if "_" in name)]


def _rename(properties: dict[str, Any]) -> None:
    for old, new in RENAMED.items():
        note = say("earlier name of {name}", name=new)
        properties[old] = {**properties[new], "deprecated": True, "description": note}


def _jobs(properties: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return several adapters that are trained together: each a name and the settings that differ from the rest of the
    file.
    """
    definitions["JobData"] = {**definitions["DataSettings"], "required": []}
    own = {key: one for key, one in properties.items() if key not in ("data", "jobs")}
    return {
        "title": "Jobs",
        "description": say("several adapters trained together; each has a name and the settings that differ"),
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {**own, "data": {"$ref": "#/$defs/JobData"}},
        },
    }
