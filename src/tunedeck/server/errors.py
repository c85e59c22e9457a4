"""Errors as HTTP: the status that says whose fault it is, and the body that OpenAI's or TEI's clients read."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse

from tunedeck.core.errors import (
    AdapterError,
    DeadlineError,
    DrainingError,
    ModelError,
    OverloadedError,
    StoppedError,
    TunedeckError,
    UnavailableError,
    UnknownAdapterError,
)
from tunedeck.core.i18n import say
from tunedeck.server.responses import ErrorBody, ErrorDetail

_MEANINGS = {
    400: "the body does not fit, or the prompt is longer than the model's positions",
    401: "no valid API key",
    403: "not an admin key, or for /metrics one without `metrics`",
    404: "no such model, or not for this key",
    408: "the body did not arrive, or the answer was not there, in time",
    413: "the body is too large",
    415: "the body is not declared as application/json",
    422: "the adapter cannot be loaded or used, and why",
    429: "too much is waiting or in memory, the key's rate is used up, or too many wrong keys came from this address",
    503: "the server is shutting down, its engine has stopped, or it is short of disk, memory or file descriptors",
}
_HEADERS = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A status with its body; `tei` is TEI's name for the kind of error."""

    status: int
    kind: str
    tei: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    allow: str | None = None
    """The allowed methods, for a 405."""
    close: bool = False
    """Whether what follows on the connection cannot be trusted."""


def failure_of(error: BaseException) -> Failure:
    """Return what a client gets for an error. Of one that is not a TunedeckError it learns only that it happened."""
    text = str(error)
    if isinstance(error, UnknownAdapterError):
        return Failure(404, "NotFoundError", "Validation", text, "model")
    if isinstance(error, OverloadedError):
        return Failure(429, "RateLimitError", "Overloaded", text, None, error.retry_after_s)
    if isinstance(error, DrainingError | StoppedError | UnavailableError):
        return Failure(503, "ServiceUnavailableError", "Unhealthy", text, None, 5.0)
    if isinstance(error, DeadlineError):
        return Failure(408, "TimeoutError", "Backend", text)
    if isinstance(error, AdapterError):
        return Failure(422, "UnprocessableEntityError", "Validation", text, "model")
    if isinstance(error, ModelError):
        return Failure(500, "InternalServerError", "Backend", text)
    if isinstance(error, TunedeckError):
        return Failure(400, "BadRequestError", "Validation", text)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        text = say("the server has no file descriptors left; try again later")
        return Failure(503, "ServiceUnavailableError", "Unhealthy", text, None, 5.0)
    return Failure(500, "InternalServerError", "Backend", say("the server failed to answer; see its log"))


def refusals(*statuses: int, body: type = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer instead of its result, for the OpenAPI document."""
    return {
        status: {"model": body, "description": _MEANINGS[status], "headers": _HEADERS.get(status, {})}
        for status in statuses
    }


def error_detail(failure: Failure, request_id: str) -> ErrorDetail:
    """Return the error as OpenAI's clients read it, with the id under which the log has the request."""
    return {
        "message": failure.message,
        "type": failure.kind,
        "param": failure.param,
        "code": failure.status,
        "request_id": request_id,
    }


def response_of(failure: Failure, path: str, request_id: str) -> JSONResponse:
    """Return the response; TEI's body for its route, OpenAI's for all others."""
    body: dict[str, Any] = {"error": failure.message, "error_type": failure.tei, "request_id": request_id}
    if path != "/predict":
        body = {"error": error_detail(failure, request_id)}
    headers = {} if failure.retry_after_s is None else {"Retry-After": str(math.ceil(failure.retry_after_s))}
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if failure.close:
        headers["Connection"] = "close"
    if failure.allow is not None:
        headers["Allow"] = failure.allow
    return JSONResponse(body, failure.status, headers)
