"""Requests as OpenAI's, vLLM's and TEI's clients send them. A field we do not honour is refused, not ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

from tunedeck.core.messages import say
from tunedeck.server.answers import Usage
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
Tokens = Annotated[list[Token], Field(min_length=1), Most("max_input_tokens")]
_MOST_FIELDS = 64


class Strict(BaseModel):
    """A body with no other fields than its own, each of its own type: "1" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, body: Any) -> Any:
        """One error for thousands of unknown fields, which would each make one of their own."""
        if isinstance(body, dict) and len(body) > _MOST_FIELDS:
            raise PydanticCustomError("fields", say("at most {limit} fields are allowed", limit=_MOST_FIELDS))
        return body


class ModelRequest(Strict):
    """What all of OpenAI's bodies have: `model` is an adapter's name, or the base's."""

    model: Name
    user: String | None = None
    """Taken and left unused, as OpenAI's own servers may."""


class StreamOptions(Strict):
    """`include_usage` adds a last chunk with the counts."""

    include_usage: bool = False


class GenerationRequest(ModelRequest):
    """How to sample; `temperature` and `top_p` as in OpenAI's API, `top_k` and `repetition_penalty` as in vLLM's."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10)
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    stop: Text | list[Text] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    presence_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0

    def stops(self) -> tuple[str, ...]:
        """Stop strings, none of them empty."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in given if one)


class TextPart(Strict):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: String | None = None

    def turn(self) -> dict[str, str]:
        """As the chat template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_tokens: int | None = Field(default=None, ge=1, le=100_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=100_000)


class CompletionRequest(GenerationRequest):
    """POST /v1/completions."""

    prompt: Text | list[Text] | list[Token] | list[list[Token]]
    max_tokens: int = Field(default=16, ge=1, le=100_000)
    echo: Literal[False] = False


class EmbeddingsRequest(ModelRequest):
    """POST /v1/embeddings."""

    input: Text | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1), Most("max_inputs")]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(default=None, ge=1)
    """The first so many numbers of each vector, scaled to length 1."""

    def contents(self) -> list[Any]:
        """Each text, or each text's token ids."""
        one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return [self.input] if one else list(self.input)


class ClassifyRequest(ModelRequest):
    """POST /classify, as vLLM has it."""

    input: Text | Texts
    use_activation: Literal[True] | None = None


class PredictRequest(Strict):
    """POST /predict, as TEI has it; `model` is ours, for TEI serves one model."""

    inputs: (
        Text
        | Annotated[
            list[Text | Annotated[list[Text], Field(min_length=1, max_length=1)]],
            Field(min_length=1),
            Most("max_inputs"),
        ]
    )
    model: Name | None = None
    truncate: bool = True
    truncation_direction: Literal["right", "Right"] = "right"
    raw_scores: Literal[False] = False


class LoadRequest(Strict):
    """POST /v1/adapters: load ahead, or again as a new version."""

    name: Name
    pin: bool | None = None


class VllmLoadRequest(Strict):
    """POST /v1/load_lora_adapter. `lora_path` must be the name itself, a folder of the root: no other place is read."""

    lora_name: Name
    lora_path: Annotated[String, Field(max_length=4096)] | None = None
    load_inplace: bool = False


class VllmUnloadRequest(Strict):
    """POST /v1/unload_lora_adapter."""

    lora_name: Name
    lora_int_id: int | None = None


def usage(prompt: int, completion: int = 0) -> Usage:
    """OpenAI's counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
