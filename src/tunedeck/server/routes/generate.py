"""POST /v1/chat/completions and /v1/completions, streamed and whole."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.generation.detokenizer import UNFINISHED
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Prompt, Sequence, TokenLogprob
from tunedeck.server.errors import error_detail, failure_of, refusals
from tunedeck.server.requests import ChatRequest, CompletionRequest, GenerationRequest
from tunedeck.server.responses import (
    ChatAnswer,
    ChatLogprobs,
    CompletionAnswer,
    GenerationUsage,
    LikelyToken,
    TextLogprobs,
    usage,
    whole_or_streamed,
)
from tunedeck.server.service import Piece, Service, error_of, service_of
from tunedeck.serving.bounds import exceeded
from tunedeck.serving.workers.generate import GenerateRequest

router = APIRouter(tags=["generation"], responses=refusals(400, 404, 408, 413, 415, 422, 503))
CHAT_TOKENS, COMPLETION_TOKENS = 256, 16
"""Tokens of an answer unless `max_tokens` is given."""


class ResponseFormat(Protocol):
    """The response format of a route."""

    kind: str
    streamed_kind: str

    def whole(self, sequence: Sequence) -> dict[str, Any]:
        """Return the choice of an answer that is sent whole."""
        ...

    def piece(
        self, index: int, text: str, finish: str | None, first: bool, logprobs: list[TokenLogprob]
    ) -> dict[str, Any]:
        """Return the choice of a piece of an answer; the last piece has a reason to finish."""
        ...


@router.post("/v1/chat/completions", response_model=None, responses=whole_or_streamed(ChatAnswer))
async def chat(http: Request, body: ChatRequest) -> Any:
    """Answer a conversation; greedy unless a temperature is given."""
    turns = [message.turn() for message in body.messages]
    _check("max_input_chars", sum(len(turn["content"]) for turn in turns), service_of(http))
    if body.top_logprobs is not None and not body.logprobs:
        raise ConfigError(say("top_logprobs needs logprobs: true"))
    most = body.max_completion_tokens or body.max_tokens or CHAT_TOKENS
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return await _answer(http, body, [turns], most, logprobs, ChatForm(logprobs is not None))


@router.post("/v1/completions", response_model=None, responses=whole_or_streamed(CompletionAnswer))
async def completions(http: Request, body: CompletionRequest) -> Any:
    """Continue a text, or token ids, as given, without a chat template."""
    prompts: list[Any] = body.prompt if _several(body.prompt) else [body.prompt]  # type: ignore[assignment]
    if body.stream and len(prompts) > 1:
        raise ConfigError(say("a stream takes one prompt; send several requests"))
    most = body.max_tokens or COMPLETION_TOKENS
    return await _answer(http, body, prompts, most, body.logprobs, TextForm(body.logprobs is not None))


def _several(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)


def _check(bound: str, seen: int, service: Service) -> None:
    limit = getattr(service.bounds, bound)
    if seen > limit:
        raise ConfigError(exceeded(bound, seen, limit))


async def _answer(
    http: Request,
    body: GenerationRequest,
    prompts: list[Prompt],
    most: int,
    logprobs: int | None,
    form: ResponseFormat,
) -> Any:
    service, choices = service_of(http), body.n or 1
    _check("max_tokens", most, service)
    _check("max_choices", choices, service)
    _check("max_inputs", choices * len(prompts), service)
    adapter = service.adapter_of(http, body.model)
    schema = body.schema_text()
    grammar = None if schema is None else await service.grammar(schema)
    sampling = Sampling(max_tokens=most, stop=body.stops(), logprobs=logprobs, **body.given())
    sequences: list[Sequence] = []
    for prompt in prompts:
        seed = secrets.randbits(63) if body.seed is None else body.seed
        for choice in range(choices):
            sequences.append(Sequence(prompt, replace(sampling, seed=seed + choice), grammar, len(sequences)))
    if not body.stream:
        await service.ask(http, adapter, sequences)
        return {
            **_head(form.kind, body.model),
            "choices": [form.whole(sequence) for sequence in sequences],
            "usage": _usage(sequences, choices),
        }
    requests, pieces = await service.stream(http, adapter, sequences)
    usage_wanted = body.stream_options is not None and bool(body.stream_options.include_usage)
    events = _events(requests, pieces, form, _head(form.streamed_kind, body.model), usage_wanted, http.state.request_id)
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(
    requests: list[GenerateRequest],
    pieces: AsyncGenerator[Piece, None],
    form: ResponseFormat,
    head: dict[str, Any],
    usage_wanted: bool,
    request_id: str,
) -> AsyncIterator[str]:
    """Every stream ends with [DONE] or an error."""
    begun: set[int] = set()
    sent_logprobs = [0] * len(requests)
    async with aclosing(pieces):
        async for index, piece in pieces:
            text, finish = "", None
            if piece is not None:
                text, logprobs = piece.text, list(piece.logprobs)
            elif (error := error_of(requests[index])) is not None:
                yield _event({"error": error_detail(failure_of(error), request_id)})
                return
            else:
                sequence = requests[index].content
                finish, logprobs = sequence.finish_reason, sequence.logprobs[sent_logprobs[index] :]
            sent_logprobs[index] += len(logprobs)
            choice = form.piece(index, text, finish, index not in begun, logprobs)
            begun.add(index)
            yield _event({**head, "choices": [choice]})
    if usage_wanted:
        sequences = [request.content for request in requests]
        yield _event({**head, "choices": [], "usage": _usage(sequences, len(sequences))})
    yield "data: [DONE]\n\n"


class ChatForm:
    """OpenAI's chat."""

    kind, streamed_kind = "chat.completion", "chat.completion.chunk"

    def __init__(self, logprobs: bool) -> None:
        self._logprobs = logprobs

    def whole(self, sequence: Sequence) -> dict[str, Any]:
        """Return the message of a whole answer."""
        return {
            "index": sequence.index,
            "message": {"role": "assistant", "content": sequence.text},
            "logprobs": self._written(sequence.logprobs),
            "finish_reason": sequence.finish_reason,
        }

    def piece(
        self, index: int, text: str, finish: str | None, first: bool, logprobs: list[TokenLogprob]
    ) -> dict[str, Any]:
        """Return what is added to a message."""
        delta = {**({"role": "assistant"} if first else {}), **({"content": text} if text or first else {})}
        return {"index": index, "delta": delta, "logprobs": self._written(logprobs), "finish_reason": finish}

    def _written(self, logprobs: list[TokenLogprob]) -> ChatLogprobs | None:
        if not self._logprobs:
            return None
        return {
            "content": [
                {**_likely(one.token, one.logprob), "top_logprobs": [_likely(*likely) for likely in one.top]}
                for one in logprobs
            ]
        }


class TextForm:
    """OpenAI's completions."""

    kind = streamed_kind = "text_completion"

    def __init__(self, logprobs: bool) -> None:
        self._logprobs = logprobs

    def whole(self, sequence: Sequence) -> dict[str, Any]:
        """Return the text of a whole answer."""
        return self.piece(sequence.index, sequence.text, sequence.finish_reason, True, sequence.logprobs)

    def piece(
        self, index: int, text: str, finish: str | None, first: bool, logprobs: list[TokenLogprob]
    ) -> dict[str, Any]:
        """Return what is added to a text."""
        return {"index": index, "text": text, "logprobs": self._written(logprobs), "finish_reason": finish}

    def _written(self, logprobs: list[TokenLogprob]) -> TextLogprobs | None:
        if not self._logprobs:
            return None
        return {
            "tokens": [one.token for one in logprobs],
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [dict(one.top) for one in logprobs],
            "text_offset": [one.offset for one in logprobs],
        }


def _likely(token: str, logprob: float) -> LikelyToken:
    return {"token": token, "logprob": logprob, "bytes": None if UNFINISHED in token else list(token.encode())}


def _usage(sequences: list[Sequence], choices: int) -> GenerationUsage:
    """Count tokens; a prompt with several answers counts once, as OpenAI does."""
    prompts = sequences[::choices]
    counts = usage(sum(one.prompt_tokens for one in prompts), sum(one.completion_tokens for one in sequences))
    return {**counts, "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in prompts)}}


def _head(kind: str, model: str) -> dict[str, Any]:
    start = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{start}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
