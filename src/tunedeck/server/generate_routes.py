"""POST /v1/chat/completions and /v1/completions, streamed and whole."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.server.answers import ChatAnswer, CompletionAnswer, whole_or_streamed
from tunedeck.server.errors import failure_of, refusals
from tunedeck.server.schemas import ChatRequest, CompletionRequest, GenerationRequest, usage
from tunedeck.server.service import service_of
from tunedeck.serving.generate_backend import Asked
from tunedeck.serving.generation import Generated
from tunedeck.tasks.sampling import Sampling

router = APIRouter(tags=["generation"], responses=refusals(400, 404, 408, 413, 415, 422, 503))
DEFAULT_TOKENS = 256


@router.post("/v1/chat/completions", response_model=None, responses=whole_or_streamed(ChatAnswer))
async def chat(http: Request, body: ChatRequest) -> Any:
    """Answer a conversation; greedy unless a temperature is given."""
    most = body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS
    asked = Asked([message.turn() for message in body.messages], _sampling(body, most))

    def choice(text: str | None, finish: str | None, first: bool) -> dict[str, Any]:
        delta = {**({"role": "assistant"} if first else {}), **({"content": text} if text or first else {})}
        return {"index": 0, "delta": delta, "finish_reason": finish}

    if body.stream:
        return await _streamed(http, body, asked, "chat.completion.chunk", choice)
    return await _whole(http, body, [asked], "chat.completion", _message)


@router.post("/v1/completions", response_model=None, responses=whole_or_streamed(CompletionAnswer))
async def completions(http: Request, body: CompletionRequest) -> Any:
    """Go on from a text, or from token ids, as they stand: no chat template."""
    prompts: list[Any] = body.prompt if _several(body.prompt) else [body.prompt]  # type: ignore[assignment]
    asked = [Asked(prompt, _sampling(body, body.max_tokens)) for prompt in prompts]

    def choice(text: str | None, finish: str | None, first: bool) -> dict[str, Any]:
        return {"index": 0, "text": text or "", "logprobs": None, "finish_reason": finish}

    if body.stream and len(asked) == 1:
        return await _streamed(http, body, asked[0], "text_completion", choice)
    if body.stream:
        raise ConfigError(say("a stream takes one prompt; send several requests"))
    return await _whole(http, body, asked, "text_completion", _text)


def _several(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)


def _sampling(body: GenerationRequest, most: int) -> Sampling:
    return Sampling(
        max_tokens=most,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        stop=body.stops(),
    )


def _message(index: int, got: Generated) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", "content": got.text}, "finish_reason": got.finish}


def _text(index: int, got: Generated) -> dict[str, Any]:
    return {"index": index, "text": got.text, "logprobs": None, "finish_reason": got.finish}


async def _whole(
    http: Request,
    body: GenerationRequest,
    asked: list[Asked],
    kind: str,
    choice: Callable[[int, Generated], dict[str, Any]],
) -> dict[str, Any]:
    service = service_of(http)
    requests = await service.ask(http, service.adapter_of(http, body.model), asked)
    answers: list[Generated] = [request.done.result() for request in requests]
    return {
        **_head(kind, body.model),
        "choices": [choice(index, answer) for index, answer in enumerate(answers)],
        "usage": usage(sum(one.prompt_tokens for one in answers), sum(one.completion_tokens for one in answers)),
    }


async def _streamed(
    http: Request,
    body: GenerationRequest,
    asked: Asked,
    kind: str,
    choice: Callable[[str | None, str | None, bool], dict[str, Any]],
) -> StreamingResponse:
    service = service_of(http)
    request, pieces = await service.stream(http, service.adapter_of(http, body.model), asked)
    head = _head(kind, body.model)

    async def events() -> AsyncIterator[str]:
        first = True
        async for piece in pieces:
            yield _event({**head, "choices": [choice(piece, None, first)]})
            first = False
        error = None if request.done.cancelled() else request.done.exception()
        if error is not None:
            failure = failure_of(error)
            yield _event({"error": {"message": failure.message, "type": failure.kind, "code": failure.status}})
            return
        got: Generated = request.done.result()
        yield _event({**head, "choices": [choice(None, got.finish, first)]})
        if body.stream_options is not None and body.stream_options.include_usage:
            yield _event({**head, "choices": [], "usage": usage(got.prompt_tokens, got.completion_tokens)})
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _head(kind: str, model: str) -> dict[str, Any]:
    start = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{start}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
