"""POST /score as vLLM has it; /rerank as Jina, Cohere and vLLM, and as TEI."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from tunedeck.core.text_pair import TextPair
from tunedeck.server.errors import refusals
from tunedeck.server.requests import RerankRequest, ScoreRequest, TeiRerankRequest
from tunedeck.server.responses import Ranked, Reranked, Scored, ScoreList, TeiRanked, usage
from tunedeck.server.service import service_of
from tunedeck.serving.request import Request
from tunedeck.tasks.score.task import ScoreAnswer

router = APIRouter(tags=["scores"])
_REFUSED = (400, 404, 408, 413, 415, 422, 503)


@router.post("/score", responses=refusals(*_REFUSED))
@router.post("/v1/score", responses=refusals(*_REFUSED))
async def score(http: HttpRequest, body: ScoreRequest) -> ScoreList:
    """The score of each pair of texts, or of each text; in the unit of the data that the adapter was trained on."""
    requests = await _scored(http, body.model, body.contents())
    data: list[Scored] = []
    for index, request in enumerate(requests):
        answer = request.done.result()
        data.append({"index": index, "object": "score", "score": answer.score, "scores": dict(answer.scores)})
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model,
        "data": data,
        "usage": usage(_tokens(requests)),
    }


@router.post("/v1/rerank", responses=refusals(*_REFUSED))
async def rerank(http: HttpRequest, body: RerankRequest) -> Reranked:
    """The documents by their score with the query, the highest first."""
    texts = body.texts()
    requests = await _scored(http, body.model, [TextPair(body.query, text) for text in texts])
    results: list[Ranked] = []
    for index, found in _ranked(requests)[: body.top_n]:
        result: Ranked = {"index": index, "relevance_score": found}
        if body.return_documents:
            result["document"] = {"text": texts[index]}
        results.append(result)
    tokens = _tokens(requests)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": body.model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


@router.post("/rerank", responses=refusals(*_REFUSED))
async def rerank_or_as_tei(http: HttpRequest, body: RerankRequest | TeiRerankRequest) -> Reranked | list[TeiRanked]:
    """As /v1/rerank; a body with `texts` is one of TEI's, and so is the answer."""
    if isinstance(body, RerankRequest):
        return await rerank(http, body)
    requests = await _scored(http, body.model, [TextPair(body.query, text) for text in body.texts])
    ranked: list[TeiRanked] = []
    for index, found in _ranked(requests):
        one: TeiRanked = {"index": index, "score": found}
        if body.return_text:
            one["text"] = body.texts[index]
        ranked.append(one)
    return ranked


async def _scored(http: HttpRequest, model: str | None, contents: Sequence[str]) -> list[Request[str, ScoreAnswer]]:
    service = service_of(http)
    return await service.ask(http, service.adapter_of(http, model), contents)


def _ranked(requests: Sequence[Request[str, ScoreAnswer]]) -> list[tuple[int, float]]:
    """Return the place and the score of each request, the highest score first."""
    scores = [request.done.result().score for request in requests]
    return sorted(enumerate(scores), key=lambda one: -one[1])


def _tokens(requests: Sequence[Request[str, ScoreAnswer]]) -> int:
    return sum(len(request.ids) for request in requests)
