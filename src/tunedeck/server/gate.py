"""What every request passes before a route sees it: key, rate, size of its body; and its line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunedeck.core.messages import say
from tunedeck.server.auth import Keys
from tunedeck.server.errors import Failure, response_of

log = logging.getLogger("tunedeck.server")
OPEN = "/health"


@final
class Gate:
    """ASGI middleware. The body is read here, whole, within `body_bytes` and `read_s` seconds, so that no slow or huge one
    holds anything of the engine. Logs say who asked what and how it ended, never what was in it.
    """

    def __init__(self, app: ASGIApp, keys: Keys, body_bytes: int, read_s: float = 30.0) -> None:
        self._app, self._keys, self._body_bytes, self._read_s = app, keys, body_bytes, read_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 499
        state = scope.setdefault("state", {})
        state["arrived_s"] = began

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            failure = self._refusal(scope)
            body = b""
            if failure is None:
                body, failure = await self._body(scope, receive)
            if failure is None:
                await self._app(scope, _replaying(body, receive), noting)
            else:
                await response_of(failure, scope["path"])(scope, receive, noting)
        except Exception:
            status = 500  # answered further out
            raise
        finally:
            line = {
                "time": round(time.time(), 3),
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(1000 * (time.monotonic() - began), 1),
                "key": getattr(state.get("caller"), "name", None),
                "model": state.get("model"),
            }
            log.info(json.dumps(line, ensure_ascii=False))

    def _refusal(self, scope: Scope) -> Failure | None:
        if scope["path"] == OPEN:
            return None
        headers = {name.lower(): value for name, value in scope["headers"]}
        caller = self._keys.caller(headers.get(b"authorization", b"").decode("latin-1"))
        if caller is None:
            return Failure(
                401, "AuthenticationError", "Validation", say("a valid API key is needed: Authorization: Bearer KEY")
            )
        wait_s = caller.wait_s()
        if wait_s:
            return Failure(
                429, "RateLimitError", "Overloaded", say("this key's rate is used up; try again later"), None, wait_s
            )
        scope["state"]["caller"] = caller
        return None

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes, Failure | None]:
        too_large = Failure(
            413,
            "RequestTooLargeError",
            "Validation",
            say("the body is larger than {limit} bytes", limit=self._body_bytes),
        )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._body_bytes:
            return b"", too_large
        body, until = bytearray(), time.monotonic() + self._read_s
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.01, until - time.monotonic()))
            except asyncio.TimeoutError:
                return b"", Failure(408, "TimeoutError", "Validation", say("the body did not arrive in time"))
            body += message.get("body", b"")
            if len(body) > self._body_bytes:
                return b"", too_large
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return bytes(body), None


def _replaying(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
