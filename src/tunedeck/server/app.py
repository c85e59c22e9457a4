"""The app: routes for the base's task, the gate in front of them, errors in the shape that clients read."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import Match

from tunedeck import __version__
from tunedeck.core.errors import TunedeckError
from tunedeck.server import adapter_routes, batch_routes, generate_routes
from tunedeck.server.answers import Status
from tunedeck.server.auth import Keys
from tunedeck.server.errors import Failure, failure_of, refusals, response_of
from tunedeck.server.gate import Gate
from tunedeck.server.service import ClientGone, Service, service_of
from tunedeck.serving.bounds import Bounds

log = logging.getLogger("tunedeck.server")
TASK_ROUTERS = {
    "classify": batch_routes.classify_router,
    "embed": batch_routes.embed_router,
    "generate": generate_routes.router,
}
open_router = APIRouter(tags=["state"])
state_router = APIRouter(tags=["state"])


def create_app(
    service: Service, keys: Keys, bounds: Bounds | None = None, *, body_bytes: int = 4_000_000, read_s: float = 30.0
) -> FastAPI:
    """An ASGI app over a running service; closing the service is the caller's."""
    app = FastAPI(title="Tunedeck", version=__version__)
    app.state.service = service
    app.openapi = partial(_document, app)  # type: ignore[method-assign]
    bearer = [Depends(HTTPBearer(auto_error=False))] if keys.needed else []  # for the document; the gate has looked
    app.include_router(open_router, responses=refusals(408, 413))
    for router in (
        state_router,
        adapter_routes.router,
        adapter_routes.admin_router,
        TASK_ROUTERS[service.task],
    ):
        app.include_router(router, dependencies=bearer, responses=refusals(401, 408, 413, 429))
    app.add_exception_handler(TunedeckError, _told)
    app.add_exception_handler(adapter_routes.Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientGone, _gone)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Gate, keys=keys, body_bytes=body_bytes, read_s=read_s, bounds=bounds or service.bounds)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document without the 422 of its own that it adds to every route: what does not fit is 400 here."""
    document = FastAPI.openapi(app)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    document["paths"]["/v1/models/{name}"]["get"]["responses"].pop("422", None)
    return document


@open_router.get("/health")
def health() -> Status:
    """The process answers; open to everybody."""
    return {"status": "ok"}


@state_router.get("/ready", response_model=Status, responses={503: {"model": Status, "description": "draining"}})
def ready(http: Request) -> JSONResponse:
    """200 while requests are taken, 503 from the moment the server drains."""
    if service_of(http).engine.ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "draining"}, 503)


@state_router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
def metrics(http: Request) -> Response:
    """Prometheus metrics."""
    return Response(
        generate_latest(service_of(http).metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def _told(http: Request, error: Exception) -> Response:
    return response_of(failure_of(error), http.url.path)


async def _refused(http: Request, error: Exception) -> Response:
    assert isinstance(error, adapter_routes.Refused)
    return response_of(error.failure, http.url.path)


async def _invalid(http: Request, error: Exception) -> Response:
    """What does not fit and where, without the values: they may be texts."""
    assert isinstance(error, RequestValidationError)
    found: list[Any] = [one for one in error.errors() if one["type"] == "value_error"] or list(error.errors())
    text = "; ".join(
        f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg'].removeprefix('Value error, ')}"
        for one in found[:3]
    )
    param = ".".join(map(str, found[0]["loc"][1:2])) or None
    return response_of(Failure(400, "BadRequestError", "Validation", text, param), http.url.path)


async def _http(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "NotFoundError" if error.status_code == 404 else "BadRequestError"
    allow = _methods_at(http) if error.status_code == 405 else None
    return response_of(Failure(error.status_code, kind, "Validation", str(error.detail), allow=allow), http.url.path)


def _methods_at(http: Request) -> str:
    """Every method that the path has, whichever route it belongs to."""
    routes, there = http.app.router.routes, []
    for method in ("GET", "POST", "DELETE"):
        if any(route.matches({**http.scope, "method": method})[0] is Match.FULL for route in routes):
            there.append(method)
    return ", ".join(there)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _failed(http: Request, error: Exception) -> Response:
    log.error("unexpected", exc_info=error)
    return response_of(failure_of(error), http.url.path)
