"""Requests as OpenAI's, vLLM's and TEI's clients send them. A field that is not honoured is refused, not ignored."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.server.fields import Most, Name, PromptTokens, String, Text, Texts, Tokens

_MOST_FIELDS = 64


class Strict(BaseModel):
    """A body without unknown fields and without conversion of types: "1" is not accepted as a number."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, body: Any) -> Any:
        """Report thousands of unknown fields as one error instead of one for each."""
        if isinstance(body, dict) and len(body) > _MOST_FIELDS:
            raise PydanticCustomError("fields", say("at most {limit} fields are allowed", limit=_MOST_FIELDS))
        return body


class ModelRequest(Strict):
    """Hold the fields that all of OpenAI's bodies have; `model` is the name of an adapter or of the base."""

    model: Name
    user: String | None = None
    """Taken and left unused, as OpenAI's servers may."""


class StreamOptions(Strict):
    """`include_usage` adds a last chunk with the counts."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(Strict):
    """A JSON schema by its name; the answer fits it, `strict` or not."""

    name: String
    description: String | None = None
    content: dict[String, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


Nothing = Annotated[list[Any], Field(max_length=0)]
Stop = Annotated[String, Most("max_stop_chars")]


class GenerationRequest(ModelRequest):
    """How to sample; `temperature` and `top_p` as in OpenAI's API, `top_k` and `repetition_penalty` as in vLLM's.

    A field that is null has its default. Fields from `logit_bias` on have no effect here: they may have no value but
    those that change nothing.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Most("max_stops")] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    logit_bias: Annotated[dict[String, Any], Field(max_length=0)] | None = None
    metadata: Annotated[dict[String, String], Field(max_length=16)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: String | None = None
    prompt_cache_key: String | None = None

    def stops(self) -> tuple[str, ...]:
        """Stop strings, none of them empty."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in given if one)

    def schema_text(self) -> str | None:
        """Return the JSON schema that the answer has to fit, as text; ConfigError for one that is too deep."""
        if isinstance(self.response_format, JsonObjectFormat):
            return '{"type": "object"}'
        if isinstance(self.response_format, JsonSchemaFormat):
            try:
                return json.dumps(self.response_format.json_schema.content)
            except RecursionError:
                raise ConfigError(say("the JSON schema cannot be used: {reason}", reason="too deep")) from None
        return None

    def given(self) -> dict[str, Any]:
        """Return the settings that are not null, by their names in `Sampling`."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class TextPart(Strict):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """One turn; of an answer that is sent back as it came, what is null or empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Most("max_messages")]
    name: String | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None
    annotations: Nothing | None = None

    def turn(self) -> dict[str, str]:
        """Return the turn in the form that the chat template takes."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions. Fields from `tools` on have no effect here."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True), Most("max_messages")]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Nothing | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None


class CompletionRequest(GenerationRequest):
    """POST /v1/completions. Fields from `echo` on have no effect here."""

    prompt: (
        Text
        | Annotated[list[Text], Field(fail_fast=True), Most("max_inputs")]
        | PromptTokens
        | Annotated[list[PromptTokens], Field(fail_fast=True), Most("max_inputs")]
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class EmbeddingsRequest(ModelRequest):
    """POST /v1/embeddings."""

    input: Text | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1), Most("max_inputs")]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(default=None, ge=1)
    """Number of leading dimensions of each vector that are returned, scaled to length 1."""

    def contents(self) -> list[str | list[int]]:
        """Return each text, or each text's token ids."""
        one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return cast("list[str | list[int]]", [self.input] if one else self.input)


class ClassifyRequest(ModelRequest):
    """POST /classify, as vLLM has it."""

    input: Text | Texts
    use_activation: Literal[True] | None = None


class AnswersRequest(ModelRequest):
    """POST /v1/answers, for tasks without a specific route."""

    input: Text | Texts


class ChooseRequest(Strict):
    """POST /v1/choose."""

    input: Text | Texts


class EntitiesRequest(Strict):
    """POST /entities, as the pipelines of transformers take their inputs; `model` is ours."""

    inputs: Text | Texts
    model: Name | None = None


class PredictRequest(Strict):
    """POST /predict, as TEI has it: texts, or lists of one text or of two, a pair; `model` is ours, for TEI serves one
    model.
    """

    inputs: (
        Text
        | Annotated[
            list[Text | Annotated[list[Text], Field(min_length=1, max_length=2)]],
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
