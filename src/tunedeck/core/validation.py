"""Translate pydantic's validation errors to the user's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunedeck.core.i18n import say


def reason_of(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, from one of a ValidationError's `errors()`; its value is not named."""
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        ((name, limit),) = context.items()
        signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
        return say("must be {sign} {limit}", sign=signs[name], limit=f"{limit:g}")
    if kind == "literal_error":
        return say("must be one of {allowed}", allowed=context["expected"].replace(" or ", ", "))
    if kind in _KINDS:
        return _types()[_KINDS[kind]]
    return str(error["msg"]).removeprefix("Value error, ")


_KINDS = {
    "int_type": "int",
    "int_parsing": "int",
    "int_from_float": "int",
    "float_type": "float",
    "float_parsing": "float",
    "finite_number": "float",
    "bool_type": "bool",
    "bool_parsing": "bool",
    "string_type": "str",
    "path_type": "str",
    "list_type": "list",
    "tuple_type": "list",
    "dict_type": "dict",
    "mapping_type": "dict",
    "model_type": "dict",
    "model_attributes_type": "dict",
    "dataclass_type": "dict",
}


def _types() -> dict[str, str]:
    return {
        "int": say("must be a whole number"),
        "float": say("must be a number"),
        "bool": say("must be true or false"),
        "str": say("must be a text"),
        "list": say("must be a list"),
        "dict": say("must be a group of keys with values"),
    }
