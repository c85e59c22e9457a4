"""Requests that are handed to the server's middleware message by message, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, MutableMapping
from typing import Any

from tunedeck.server.auth import Keys
from tunedeck.server.metrics import Metrics
from tunedeck.server.middleware import RequestMiddleware
from tunedeck.serving.bounds import Bounds

Headers = dict[str, str]
JSON = {"Content-Type": "application/json"}


class Asked:
    """One request to an app: what it has read of the body, and what it has answered."""

    def __init__(self, method: str, path: str, headers: Headers, body: Iterable[bytes] = ()) -> None:
        self.scope: MutableMapping[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("10.0.0.7", 5),
        }
        self._pieces = list(body)
        self.read = 0
        self.answer: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        if self.read == len(self._pieces):
            await asyncio.Event().wait()
        self.read += 1
        more = self.read < len(self._pieces) or b"" in self._pieces
        return {"type": "http.request", "body": self._pieces[self.read - 1], "more_body": more}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.answer.append(message)

    @property
    def status(self) -> int:
        return int(self.answer[0]["status"])

    @property
    def headers(self) -> Headers:
        return {name.decode().lower(): value.decode() for name, value in self.answer[0]["headers"]}

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.answer[1]["body"])["error"]
        return error


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """An app that reads its body and answers 200."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def gate(
    app: Any = answering, keys: Keys | None = None, bounds: Bounds | None = None, **more: Any
) -> RequestMiddleware:
    return RequestMiddleware(app, keys or Keys(None), bounds or Bounds(), more.pop("metrics", Metrics("tiny")), **more)


def ask(through: RequestMiddleware, method: str, path: str, headers: Headers, body: Iterable[bytes] = ()) -> Asked:
    asked = Asked(method, path, headers, body)
    asyncio.run(asyncio.wait_for(through(asked.scope, asked.receive, asked.send), 20))
    return asked
