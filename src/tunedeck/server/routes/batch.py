"""POST /v1/embeddings, /classify as vLLM has it, /predict as TEI has it, /entities as pipelines of transformers."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

import torch
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from torch.nn import functional

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.server.errors import refusals
from tunedeck.server.requests import (
    AnswersRequest,
    ClassifyRequest,
    EmbeddingsRequest,
    EntitiesRequest,
    PredictRequest,
)
from tunedeck.server.responses import (
    Answer,
    Answers,
    Classification,
    Classified,
    Embeddings,
    FoundEntity,
    InputUsage,
    LabelScore,
    TeiErrorBody,
    Vector,
    usage,
)
from tunedeck.server.service import service_of
from tunedeck.serving.request import Request
from tunedeck.tasks.classify.prediction import Prediction
from tunedeck.tasks.registry import view_of
from tunedeck.tasks.tag.task import Entities

embed_router = APIRouter(tags=["embeddings"])
classify_router = APIRouter(tags=["classification"])
entities_router = APIRouter(tags=["entities"])
answers_router = APIRouter(tags=["answers"])
_REFUSED = (400, 404, 408, 413, 415, 422, 503)
_REFUSED_AS_TEI = refusals(400, 401, 404, 408, 413, 415, 422, 429, 503, body=TeiErrorBody)


@embed_router.post("/v1/embeddings", responses=refusals(*_REFUSED))
async def embeddings(http: HttpRequest, body: EmbeddingsRequest) -> Embeddings:
    """Vectors of texts, float32; base64 is of their little-endian bytes."""
    service = service_of(http)
    adapter = service.adapter_of(http, body.model)
    requests: list[Request[str | list[int], torch.Tensor]] = await service.ask(http, adapter, body.contents())
    data: list[Vector] = []
    for index, request in enumerate(requests):
        vector = _shortened(request.done.result(), body.dimensions)
        coded: Any = vector.tolist()
        if body.encoding_format == "base64":
            coded = base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": coded})
    tokens = sum(len(request.ids) for request in requests)
    counted: InputUsage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": body.model, "data": data, "usage": counted}


def _shortened(vector: torch.Tensor, dimensions: int | None) -> torch.Tensor:
    """Return the first numbers of a vector, scaled to length 1, as embeddings trained to be cut are meant to be
    used.
    """
    if dimensions is None:
        return vector
    if dimensions > len(vector):
        raise ConfigError(say("dimensions is {got}; the vectors have {size}", got=dimensions, size=len(vector)))
    return functional.normalize(vector[:dimensions], dim=0)


@classify_router.post("/classify", responses=refusals(*_REFUSED))
async def classify(http: HttpRequest, body: ClassifyRequest) -> Classification:
    """The likeliest label of each text and the probability of every label, in the adapter's order.

    Where the adapter has thresholds, the label is "unsure" below them, and "none of these" far from its training texts.
    """
    service = service_of(http)
    texts = [body.input] if isinstance(body.input, str) else body.input
    adapter = service.adapter_of(http, body.model)
    requests: list[Request[str, Prediction]] = await service.ask(http, adapter, texts)
    data: list[Classified] = []
    for index, request in enumerate(requests):
        answer = request.done.result()
        chances = list(answer.probabilities.values())
        label = answer.abstain or answer.label
        data.append({"index": index, "label": label, "probs": chances, "num_classes": len(chances)})
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model,
        "data": data,
        "usage": usage(sum(len(request.ids) for request in requests)),
    }


@classify_router.post("/predict", responses=_REFUSED_AS_TEI)
async def predict(http: HttpRequest, body: PredictRequest) -> list[LabelScore] | list[list[LabelScore]]:
    """Every label with its probability, the likeliest first; a list of such lists for a list of inputs."""
    service = service_of(http)
    texts = [body.inputs] if isinstance(body.inputs, str) else [_text_or_pair(one) for one in body.inputs]
    adapter = service.adapter_of(http, body.model)
    requests: list[Request[str, Prediction]] = await service.ask(http, adapter, texts)
    answers: list[list[LabelScore]] = []
    for request in requests:
        chances = request.done.result().probabilities
        ranked = sorted(chances.items(), key=lambda one: -one[1])
        answers.append([{"score": chance, "label": label} for label, chance in ranked])
    return answers[0] if isinstance(body.inputs, str) else answers


def _text_or_pair(given: str | list[str]) -> str:
    if isinstance(given, str):
        return given
    return given[0] if len(given) == 1 else TextPair(*given)


@entities_router.post("/entities", responses=refusals(*_REFUSED))
async def entities(http: HttpRequest, body: EntitiesRequest) -> list[FoundEntity] | list[list[FoundEntity]]:
    """The entities of a text in order; a list of such lists for a list of inputs. Long texts are read whole."""
    service = service_of(http)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    adapter = service.adapter_of(http, body.model)
    requests: list[Request[str, Entities]] = await service.ask(http, adapter, texts)
    found: list[list[FoundEntity]] = [
        [
            {
                "entity_group": one.label,
                "score": one.score,
                "word": one.text,
                "start": one.start,
                "end": one.end,
            }
            for one in request.done.result().entities
        ]
        for request in requests
    ]
    return found[0] if isinstance(body.inputs, str) else found


@answers_router.post("/v1/answers", responses=refusals(*_REFUSED))
async def answers(http: HttpRequest, body: AnswersRequest) -> Answers:
    """Answer each text, in the form of the server's task."""
    service = service_of(http)
    texts = [body.input] if isinstance(body.input, str) else body.input
    adapter = service.adapter_of(http, body.model)
    requests: list[Request[str, Any]] = await service.ask(http, adapter, texts)
    serving = view_of(service.task).serving
    assert serving is not None
    data: list[Answer] = [
        {"index": index, "answer": serving.to_json(request.done.result())} for index, request in enumerate(requests)
    ]
    return {
        "object": "list",
        "model": body.model,
        "data": data,
        "usage": usage(sum(len(request.ids) for request in requests)),
    }
