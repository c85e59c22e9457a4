"""The app: routes for the base's task, the gate in front of them, errors in the shape that clients read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import Match

from tunedeck import __version__
from tunedeck.core.errors import TunedeckError
from tunedeck.core.i18n import say
from tunedeck.server.auth import Keys
from tunedeck.server.errors import Failure, failure_of, refusals, response_of
from tunedeck.server.middleware import RequestMiddleware
from tunedeck.server.responses import Status
from tunedeck.server.routes import adapters as adapter_routes
from tunedeck.server.routes import batch as batch_routes
from tunedeck.server.routes import generate as generate_routes
from tunedeck.server.routes import score as score_routes
from tunedeck.server.service import ClientGone, Service, caller_of, service_of
from tunedeck.server.tracing import Tracer
from tunedeck.serving.bounds import Bounds, current_bounds
from tunedeck.tasks.base import Route
from tunedeck.tasks.registry import view_of

ROUTERS: Mapping[Route, APIRouter] = {
    "labels": batch_routes.classify_router,
    "entities": batch_routes.entities_router,
    "scores": score_routes.router,
    "vectors": batch_routes.embed_router,
    "text": generate_routes.router,
    "answers": batch_routes.answers_router,
}
"""The routes that answer, by what a task's view names."""
_HEADERS = {
    "X-Request-ID": {"description": "the request's own, or one that was made for it", "schema": {"type": "string"}},
    "X-Adapter": {
        "description": "for the model auto: the adapters that were chosen, percent-encoded, the first 16",
        "schema": {"type": "string"},
    },
    "X-Queue-Ms": {"description": "from its arrival to the start of its batch", "schema": {"type": "number"}},
    "X-Compute-Ms": {"description": "from the start of its batch to its answer", "schema": {"type": "number"}},
}
_FIELD = re.compile(r"(?!(str|int|float|bool|dict)$)[a-z_]+")
open_router = APIRouter(tags=["state"])
state_router = APIRouter(tags=["state"])


def create_app(
    service: Service,
    keys: Keys,
    bounds: Bounds | None = None,
    hosts: Collection[str] | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Return an ASGI app over a running service; closing the service is the caller's. `bounds` take the place of the
    service's, `hosts` and `tracer` are the gate's.
    """
    app = FastAPIOffline(title="Tunedeck", version=__version__)
    app.state.service = service
    service.bounds = bounds = bounds or service.bounds
    service.metrics.charge = keys.charge
    app.openapi = partial(_document, app, bounds)  # type: ignore[method-assign]
    bearer = [Depends(HTTPBearer(auto_error=False))] if keys.needed else []  # for the document; the gate has looked
    app.include_router(open_router)
    for router in (
        state_router,
        adapter_routes.router,
        adapter_routes.admin_router,
        ROUTERS[view_of(service.task).route],
    ):
        app.include_router(router, dependencies=bearer, responses=refusals(401, 429))
    app.add_exception_handler(TunedeckError, _tunedeck_error)
    app.add_exception_handler(adapter_routes.Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientGone, _gone)
    app.add_middleware(RequestMiddleware, keys=keys, bounds=bounds, metrics=service.metrics, hosts=hosts, tracer=tracer)
    return app


def api_document() -> dict[str, Any]:
    """Return the OpenAPI document of the routes of all tasks, without a running service."""
    app = FastAPI(title="Tunedeck", version=__version__)
    for router in (open_router, state_router, adapter_routes.router, adapter_routes.admin_router, *ROUTERS.values()):
        app.include_router(router)
    return _document(app, Bounds())


def _document(app: FastAPI, bounds: Bounds) -> dict[str, Any]:
    """Return FastAPI's document with the answers of the middleware: 408 and 415 where there is a body, ids and times in
    the headers.

    The 422 that FastAPI adds to every route goes: what does not fit is 400 here.
    """
    if app.openapi_schema is not None:
        return app.openapi_schema
    token = current_bounds.set(bounds)
    document = FastAPI.openapi(app)
    current_bounds.reset(token)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    document["paths"]["/v1/models/{name}"]["get"]["responses"].pop("422", None)
    for operation in (one for methods in document["paths"].values() for one in methods.values()):
        for response in operation["responses"].values():
            response["headers"] = {**response.get("headers", {}), **_HEADERS}
    return document


@open_router.get(
    "/health",
    response_model=Status,
    responses={503: {"model": Status, "description": "the engine or the loader is stuck or dead"}},
)
async def health(http: Request) -> JSONResponse:
    """Report whether the engine and the loader run; needs no key. On 503 the process should be restarted."""
    reason = service_of(http).engine.alarm()
    return JSONResponse({"status": reason or "ok"}, 503 if reason else 200)


@state_router.get(
    "/ready", response_model=Status, responses={503: {"model": Status, "description": "draining, or why not"}}
)
async def ready(http: Request) -> JSONResponse:
    """200 while requests are taken; 503 from the moment the server drains, and while it is not well."""
    engine = service_of(http).engine
    reason = engine.alarm() or (None if engine.ready else "draining")
    return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)


@state_router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(403)},
)
def metrics(http: Request) -> Response:
    """Prometheus metrics, for admin keys and keys with `metrics = true`: every adapter and key is named here."""
    caller = caller_of(http)
    if not (caller.admin or caller.metrics):
        text = say("this needs an admin key, or one with metrics = true")
        raise adapter_routes.Refused(Failure(403, "PermissionDeniedError", "Validation", text))
    return Response(
        generate_latest(service_of(http).metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def _tunedeck_error(http: Request, error: Exception) -> Response:
    return response_of(failure_of(error), http.url.path, http.state.request_id)


async def _refused(http: Request, error: Exception) -> Response:
    assert isinstance(error, adapter_routes.Refused)
    return response_of(error.failure, http.url.path, http.state.request_id)


async def _invalid(http: Request, error: Exception) -> Response:
    """Return each problem and its place in the body without the values, which may be confidential texts."""
    assert isinstance(error, RequestValidationError)
    everything: list[Any] = list(error.errors())
    found = [one for one in everything if one["type"] == "value_error"] or everything  # ours say most
    told = dict.fromkeys(f"{_place(one) or 'body'}: {one['msg'].removeprefix('Value error, ')}" for one in found)
    param = _place(found[0]).partition(".")[0] or None
    return response_of(
        Failure(400, "BadRequestError", "Validation", "; ".join(list(told)[:3]), param),
        http.url.path,
        http.state.request_id,
    )


def _place(error: dict[str, Any]) -> str:
    """Return field names and indexes; the names that pydantic gives to the members of a union are not part of the
    body.
    """
    *parts, last = error["loc"][1:] or ("",)
    kept = [str(one) for one in parts if isinstance(one, int) or _FIELD.fullmatch(one)]
    if isinstance(last, int) or _FIELD.fullmatch(last) or (error["type"] == "extra_forbidden" and last.isprintable()):
        kept.append(str(last)[:64])
    return ".".join(kept)


async def _http(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "NotFoundError" if error.status_code == 404 else "BadRequestError"
    allow = _methods_at(http) if error.status_code == 405 else None
    return response_of(
        Failure(error.status_code, kind, "Validation", str(error.detail), allow=allow),
        http.url.path,
        http.state.request_id,
    )


def _methods_at(http: Request) -> str:
    """Return every method that the path has, whichever route it belongs to."""
    routes, there = http.app.router.routes, []
    for method in ("GET", "POST", "DELETE"):
        if any(route.matches({**http.scope, "method": method})[0] is Match.FULL for route in routes):
            there.append(method)
    return ", ".join(there)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
