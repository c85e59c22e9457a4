"""Types of the fields of requests: valid Unicode, and no more than the server's bounds allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, final

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

from tunedeck.serving.bounds import current_bounds, exceeded


def _unicode(text: str) -> str:
    """JSON can hold half a character, which no tokenizer and no response can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("Input should be valid Unicode, no lone surrogates") from None
    return text


@final
@dataclass(frozen=True, slots=True)
class Most:
    """At most as many items or characters as a bound of the server's says; looked at before any item is."""

    bound: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(schema)
        made["maxLength" if made.get("type") == "string" else "maxItems"] = self._limit
        return made

    @property
    def _limit(self) -> int:
        return int(getattr(current_bounds.get(), self.bound))

    def _checked(self, value: Any) -> Any:
        if isinstance(value, str | list) and len(value) > self._limit:
            raise ValueError(exceeded(self.bound, len(value), self._limit))
        return value


String = Annotated[str, AfterValidator(_unicode)]
Text = Annotated[String, Most("max_input_chars")]
Name = Annotated[String, Field(min_length=1, max_length=512)]
Token = Annotated[int, Field(ge=0)]
Texts = Annotated[list[Text], Field(min_length=1), Most("max_inputs")]
PromptTokens = Annotated[list[Token], Field(fail_fast=True), Most("max_input_tokens")]
Tokens = Annotated[PromptTokens, Field(min_length=1)]
