"""POST /score as vLLM has it; /rerank as Jina, Cohere and vLLM, and as TEI."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.server.errors import refusals
from tunedeck.server.fields import Most, Name, Text, Texts
from tunedeck.server.requests import ModelRequest, Strict
from tunedeck.server.responses import InputUsage, Usage, usage
from tunedeck.server.service import service_of
from tunedeck.serving.request import Request
from tunedeck.tasks.score.task import ScoreAnswer

router = APIRouter(tags=["scores"])
_REFUSED = (400, 404, 408, 413, 415, 422, 503)


class ScoreRequest(ModelRequest):
    """POST /score and /v1/score, as vLLM has it; a single text of either side goes with every text of the other.

    Without `text_2` each text of `text_1` is scored by itself.
    """

    text_1: Text | Texts
    text_2: Text | Texts | None = None

    def contents(self) -> list[str]:
        """Return the texts or pairs to score; ConfigError for numbers of texts that do not fit."""
        firsts = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        if self.text_2 is None:
            return firsts
        seconds = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        count = max(len(firsts), len(seconds))
        if len(firsts) not in (1, count) or len(seconds) not in (1, count):
            raise ConfigError(
                say(
                    "text_1 has {first} texts and text_2 {second}: give as many of each, or one of either",
                    first=len(firsts),
                    second=len(seconds),
                )
            )
        firsts, seconds = firsts * (count // len(firsts)), seconds * (count // len(seconds))
        return [TextPair(*pair) for pair in zip(firsts, seconds, strict=True)]


class RerankDocument(Strict):
    """A document as an object."""

    text: Text


class RerankRequest(ModelRequest):
    """POST /rerank and /v1/rerank, as Jina, Cohere and vLLM have it."""

    query: Text
    documents: Annotated[list[Text | RerankDocument], Field(min_length=1), Most("max_inputs")]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    def texts(self) -> list[str]:
        """Return the documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class TeiRerankRequest(Strict):
    """POST /rerank, as TEI has it; `model` is ours, for TEI serves one model."""

    query: Text
    texts: Texts
    model: Name | None = None
    return_text: bool = False
    truncate: bool = True
    truncation_direction: Literal["right", "Right"] = "right"
    raw_scores: Literal[False] = False


class TextScore(TypedDict):
    """The score of a text or pair; `scores` has those of all targets."""

    index: int
    object: Literal["score"]
    score: float
    scores: dict[str, float]


class ScoreList(TypedDict):
    """POST /score."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[TextScore]
    usage: Usage


class DocumentText(TypedDict):
    """A document of the request."""

    text: str


class Ranked(TypedDict):
    """A document by its place in the request."""

    index: int
    relevance_score: float
    document: NotRequired[DocumentText]


class Reranked(TypedDict):
    """POST /rerank, the most relevant first."""

    id: str
    model: str
    results: list[Ranked]
    usage: InputUsage


class TeiRanked(TypedDict):
    """A document of TEI's /rerank."""

    index: int
    score: float
    text: NotRequired[str]


@router.post("/score", responses=refusals(*_REFUSED))
@router.post("/v1/score", responses=refusals(*_REFUSED))
async def score(http: HttpRequest, body: ScoreRequest) -> ScoreList:
    """The score of each pair of texts, or of each text; in the unit of the data that the adapter was trained on."""
    requests = await _scored(http, body.model, body.contents())
    data: list[TextScore] = []
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
