"""Settings described where they are declared: the text that flags, the JSON schema and the reference page show."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, final, get_args, get_origin, get_type_hints


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Help:
    """Describe a setting, as an annotation of a field of a pydantic model or a dataclass.

    `r: Annotated[int, Help(say("LoRA rank"))] = 8`. `flag` is its flag where it is not the field's name.
    """

    text: str
    flag: str | None = None

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Put the text into the JSON schema that pydantic makes."""
        return {**handler(schema), "description": self.text}


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field of a settings class; `type` is its annotation without Help, `default` None where it is required too."""

    name: str
    type: Any
    help: Help | None = None
    default: Any = None

    @property
    def plain(self) -> type[Any] | None:
        """Return the one type of its values besides None, if that is bool, int, float or str (or a choice of texts)."""
        found = _members(self.type)
        if len(found) != 1:
            return None
        if get_origin(found[0]) is Literal:
            return str
        return found[0] if found[0] in (bool, int, float, str) else None

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the values that a Literal allows, for itself or for the items of a list; empty for anything else."""
        return tuple(str(value) for literal in _literals(self.type) for value in get_args(literal))

    @property
    def is_list(self) -> bool:
        """Tell whether it takes a list of values."""
        return any(get_origin(member) is tuple for member in _members(self.type))

    @property
    def is_list_or_pattern(self) -> bool:
        """Tell whether it takes a list of names or one text, as LoRA's target_modules do."""
        return self.is_list and str in _members(self.type)


def settings_of(cls: type[Any]) -> list[Setting]:
    """Return the fields of a pydantic model or a dataclass with their texts, in order."""
    fields: Mapping[str, Any] = getattr(cls, "model_fields", None) or {f.name: f for f in dataclasses.fields(cls)}
    hints = get_type_hints(cls, vars(sys.modules[cls.__module__]), include_extras=True)
    found = []
    for name, field in fields.items():
        annotation, text = hints[name], None
        while get_origin(annotation) is Annotated:
            text = next((one for one in annotation.__metadata__ if isinstance(one, Help)), text)
            annotation = annotation.__origin__
        default = field.default if isinstance(field.default, bool | int | float | str | tuple) else None
        found.append(Setting(name, annotation, text, default))
    return found


def _members(annotation: Any) -> list[Any]:
    """Return the types of a union without None; the type itself if it is not a union."""
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [member for member in get_args(annotation) if member is not type(None)]


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [annotation]
    return [found for one in get_args(annotation) for found in _literals(one)]
