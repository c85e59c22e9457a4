"""Define the bodies of responses as types, which mypy checks and the OpenAPI document shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SkipValidation
from typing_extensions import TypedDict


class Status(TypedDict):
    """GET /health and /ready."""

    status: str


class ErrorDetail(TypedDict):
    """An error as OpenAI's clients read it; `code` is the status, `request_id` the response's X-Request-ID."""

    message: str
    type: str
    param: str | None
    code: int
    request_id: str


class ErrorBody(TypedDict):
    """The body of every error but those of /predict."""

    error: ErrorDetail


class TeiErrorBody(TypedDict):
    """The body of an error of /predict."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation"]
    request_id: str


class Model(TypedDict):
    """One model; `parent` is the base's name, null for the base itself."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int | None


class ModelList(TypedDict):
    """GET /v1/models."""

    object: Literal["list"]
    data: list[Model]


class OnDisk(TypedDict):
    """An adapter that would be loaded on its first use."""

    name: str
    resident: Literal[False]


class InMemory(TypedDict):
    """An adapter in memory: how many requests use it, and a note where something could not be tested on load."""

    name: str
    resident: Literal[True]
    version: int
    bytes: int
    users: int
    pinned: bool
    note: str | None


class Loaded(InMemory):
    """POST /v1/adapters."""

    load_ms: float


class AdapterList(TypedDict):
    """GET /v1/adapters."""

    object: Literal["list"]
    data: list[InMemory | OnDisk]
    bytes: int
    max_bytes: int


class InputUsage(TypedDict):
    """Tokens of inputs that have no answer in tokens."""

    prompt_tokens: int
    total_tokens: int


class Usage(InputUsage):
    """OpenAI's counts."""

    completion_tokens: int


class PromptDetails(TypedDict):
    """Tokens of the prompts that were found in the prompt cache."""

    cached_tokens: int


class GenerationUsage(Usage):
    """OpenAI's counts for generated texts."""

    prompt_tokens_details: PromptDetails


class Vector(TypedDict):
    """One vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: SkipValidation[list[float] | str]


class Embeddings(TypedDict):
    """POST /v1/embeddings."""

    object: Literal["list"]
    model: str
    data: list[Vector]
    usage: InputUsage


class Classified(TypedDict):
    """The likeliest label, and the probability of every label in the adapter's order."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Classification(TypedDict):
    """POST /classify."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: Usage


class Answer(TypedDict):
    """The task's result in its format."""

    index: int
    answer: Any


class Answers(TypedDict):
    """POST /v1/answers."""

    object: Literal["list"]
    model: str
    data: list[Answer]
    usage: Usage


class Chosen(TypedDict):
    """The adapter that the model "auto" chooses: whether the text is near to its training texts, the cosine to the
    nearest of their centroids, and how sure the choice is.
    """

    index: int
    adapter: str
    near: bool
    similarity: float
    certainty: float


class Choices(TypedDict):
    """POST /v1/choose."""

    object: Literal["list"]
    data: list[Chosen]


class LabelScore(TypedDict):
    """A label and its probability."""

    score: float
    label: str


class FoundEntity(TypedDict):
    """An entity from `start` to `end` (exclusive) in code points; `score` is the mean probability of its tags."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class AssistantMessage(TypedDict):
    """The answer's message."""

    role: Literal["assistant"]
    content: str


class LikelyToken(TypedDict):
    """A token as text and as UTF-8, and the logarithm of its probability; `bytes` is null for a piece of a
    character.
    """

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenToken(LikelyToken):
    """A token of the answer and the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(TypedDict):
    """One entry for each token, by the model's distribution, before temperature and penalties."""

    content: list[ChosenToken]


class TextLogprobs(TypedDict):
    """Log-probabilities as parallel lists; `text_offset` counts the characters of the answer before each token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class ChatChoice(TypedDict):
    """One answer to a conversation."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatAnswer(TypedDict):
    """POST /v1/chat/completions, whole."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: GenerationUsage


class TextChoice(TypedDict):
    """One completion of a prompt."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(TypedDict):
    """POST /v1/completions, whole."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: GenerationUsage


def whole_or_streamed(whole: type) -> dict[int | str, dict[str, Any]]:
    """Return a success of a route that answers in JSON, or in server-sent events when `stream` is set."""
    event = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    events = {"text/event-stream": {"itemSchema": event}}
    return {200: {"model": whole, "content": events, "description": "the answer; events when `stream` is set"}}


def usage(prompt: int, completion: int = 0) -> Usage:
    """OpenAI's counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
