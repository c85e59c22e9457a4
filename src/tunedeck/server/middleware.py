"""Check every request before its route (host, key, rate, body), give it an id, log it and count it in the metrics."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunedeck.core.i18n import say
from tunedeck.server.auth import Caller, Guesses, Keys
from tunedeck.server.bodies import Bodies, Left
from tunedeck.server.errors import Failure, failure_of, response_of
from tunedeck.server.log import Line
from tunedeck.server.metrics import Metrics
from tunedeck.server.paths import DOCS, HEALTH, is_open, route_of
from tunedeck.server.tracing import Tracer
from tunedeck.serving.bounds import Bounds, current_bounds

log = logging.getLogger("tunedeck.server")
_NAMED = 16
"""Chosen adapters that the answer's header names."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ONLY_THIS_HOST = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"worker-src blob:; frame-ancestors 'none'"
)
"""Content security policy of the documentation pages, whose scripts come from this server only."""


@final
@dataclass(eq=False)
class _Passage:
    """One request at the gate."""

    scope: Scope
    headers: dict[bytes, bytes]
    request_id: str
    client: str | None
    began: float = field(default_factory=time.monotonic)
    status: int = 499
    answered: bool = False

    @property
    def state(self) -> dict[str, Any]:
        """Return values shared with the routes: `caller`, `request_id`, ... for them; `model`, `timing` from them."""
        state: dict[str, Any] = self.scope["state"]
        return state

    def added_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the request's id, and its times in the queue and in computing where a route has told them."""
        added = [(b"x-request-id", self.request_id.encode())]
        if self.scope["path"] in DOCS:
            added.append((b"content-security-policy", _ONLY_THIS_HOST))
        if chosen := self.state.get("chosen"):
            names = ", ".join(quote(name, safe="/") for name in chosen[:_NAMED])
            added.append((b"x-adapter", names.encode("ascii")))
        if timing := self.state.get("timing"):
            added += [
                (name, f"{1000 * seconds:.1f}".encode())
                for name, seconds in zip((b"x-queue-ms", b"x-compute-ms"), timing, strict=True)
                if seconds is not None
            ]
        return added

    def trace(self, tracer: Tracer, route: str) -> None:
        """As a span; the attributes' names are OpenTelemetry's."""
        told = {
            "http.request.method": self.scope["method"],
            "http.route": route,
            "http.response.status_code": self.status,
            "client.address": self.client,
            "tunedeck.request_id": self.request_id,
            "tunedeck.key": getattr(self.state.get("caller"), "name", None),
            "tunedeck.model": self.state.get("model"),
        }
        timing = self.state.get("timing") or (None, None)
        tracer.ended(f"{self.scope['method']} {route}", self.headers, time.monotonic() - self.began, timing, told)

    def line(self) -> Line:
        """Return the line for the log: the caller, the request and its outcome, never its content."""
        queue_s, compute_s = self.state.get("timing") or (None, None)
        return Line(
            time=round(time.time(), 3),
            request_id=self.request_id,
            client=self.client,
            method=self.scope["method"],
            path=self.scope["path"][:1000],
            status=self.status,
            ms=_ms(time.monotonic() - self.began),
            key=getattr(self.state.get("caller"), "name", None),
            model=self.state.get("model"),
            queue_ms=_ms(queue_s),
            compute_ms=_ms(compute_s),
        )


@final
class RequestMiddleware:
    """ASGI middleware. Whatever a route could be held up or filled up with is bounded here, before anything of it is
    computed.

    `hosts` are the names under which the server may be asked, None for all: without keys a page in a browser, whose
    name somebody has pointed at this machine, must get nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        bounds: Bounds,
        metrics: Metrics,
        hosts: Collection[str] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._app, self._keys, self._bounds, self._metrics, self._hosts = app, keys, bounds, metrics, hosts
        self._tracer = tracer
        self._bodies, self._guesses = Bodies(bounds), Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _passage(scope)
        current_bounds.set(self._bounds)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                passage.status, passage.answered = message["status"], True
                message = {**message, "headers": [*message.get("headers", ()), *passage.added_headers()]}
            await send(message)

        try:
            await self._pass(passage, receive, sending)
        except Left:
            pass
        except asyncio.CancelledError:  # at the end of a drain, of who does not read; uvicorn would log it as an error
            passage.status = 499
        except Exception as error:
            passage.status = 500
            if passage.answered:
                raise  # uvicorn breaks the connection and logs the error
            log.error("unexpected", exc_info=error, extra={"request_id": passage.request_id})
            await response_of(failure_of(error), scope["path"], passage.request_id)(scope, receive, sending)
        finally:
            route = route_of(scope["path"])
            self._metrics.responded(route, passage.status)
            log.info(passage.line())
            if self._tracer is not None:
                passage.trace(self._tracer, route)

    async def _pass(self, passage: _Passage, receive: Receive, send: Send) -> None:
        scope = passage.scope
        failure = self._refusal(passage)
        caller: Caller | None = passage.state.get("caller")
        with self._bodies.one("" if caller is None else caller.name) as body:
            if failure is None:
                failure = await self._bodies.read(scope, receive, body, share=caller is not None and not caller.alone)
            if failure is None:
                await self._app(scope, self._bodies.replaying(body, receive), send)
            else:
                await response_of(failure, scope["path"], passage.request_id)(scope, receive, send)

    def _refusal(self, passage: _Passage) -> Failure | None:
        headers = passage.headers
        if b"content-length" in headers and b"transfer-encoding" in headers:
            text = say("a body has either a Content-Length or a Transfer-Encoding")
            return Failure(400, "BadRequestError", "Validation", text, close=True)
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _without_port(host) not in self._hosts:
            text = say(
                "this server without keys is not called {host!r}; ask localhost, or give --host", host=host[:200]
            )
            return Failure(421, "MisdirectedRequestError", "Validation", text)
        if passage.scope["path"] == HEALTH and passage.scope["method"] not in ("GET", "HEAD"):
            return Failure(405, "BadRequestError", "Validation", "Method Not Allowed", allow="GET", close=True)
        if not is_open(passage.scope["path"]):
            failure = self._stranger(passage)
            if failure is not None:
                return failure
        return self._bodies.refusal(passage.scope, headers)

    def _stranger(self, passage: _Passage) -> Failure | None:
        """Return the reason to refuse the caller; from here on the request's state holds the caller."""
        given = passage.headers.get(b"authorization", b"").decode("latin-1")
        caller = self._keys.caller(given)
        if caller is None and given and (wait_s := self._guesses.wait_s(passage.client or "")):
            text = say("too many wrong API keys from this address; try again later")
            return Failure(429, "RateLimitError", "Overloaded", text, None, wait_s)
        if caller is None:
            return Failure(
                401, "AuthenticationError", "Validation", say("a valid API key is needed: Authorization: Bearer KEY")
            )
        passage.state["caller"] = caller
        if wait_s := caller.wait_s():
            return Failure(
                429, "RateLimitError", "Overloaded", say("this key's rate is used up; try again later"), None, wait_s
            )
        return None


def _passage(scope: Scope) -> _Passage:
    headers = {name.lower(): value for name, value in scope["headers"]}
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    request_id = given if _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    client = scope["client"][0] if scope.get("client") else None
    passage = _Passage(scope, headers, request_id, client)
    state = scope.setdefault("state", {})
    state["arrived_s"], state["request_id"], state["client"] = passage.began, request_id, client
    return passage


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
