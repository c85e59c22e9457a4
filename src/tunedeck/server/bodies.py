"""Bodies of requests: read whole within bounds of bytes and time, counted together, and handed on one big one at a
time.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import anyio
from starlette.types import Message, Receive, Scope

from tunedeck.core.i18n import say
from tunedeck.server.errors import Failure
from tunedeck.server.paths import TO_ADMINISTER, WITH_INPUTS
from tunedeck.serving.bounds import Bounds, exceeded, flag_of

_NAME = re.compile(rb'"\s*:')
_BIG = 64_000
"""Bytes above which parsing and validating a body takes the event loop long enough for others to notice."""


@final
@dataclass(eq=False)
class Body:
    """Hold the part of one body that has arrived; its bytes count until its request is answered."""

    key: str
    data: bytearray = field(default_factory=bytearray)
    counted: int = 0


class Left(Exception):  # noqa: N818 - no error of anybody's
    """The client went away in the middle of its body."""


@final
class Bodies:
    """Reads bodies for the gate. All of them together stay below `body_memory`, those of one key below its share of
    that.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held = 0
        self._held_by: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    @property
    def held(self) -> int:
        """Return bytes in memory now."""
        return self._held

    @contextmanager
    def one(self, key: str) -> Iterator[Body]:
        """A body of a key, given back at the end."""
        body = Body(key)
        try:
            yield body
        finally:
            self._held -= body.counted
            self._held_by[key] -= body.counted
            if not self._held_by[key]:
                del self._held_by[key]

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Failure | None:
        """Return why a body is refused before reading it: its headers declare it too long, or not JSON."""
        length, chunked = headers.get(b"content-length", b"0"), b"transfer-encoding" in headers
        declared = int(length) if length.isdigit() else 0
        if not chunked and not declared:
            return None
        limit = self.limit(scope)
        if limit is None:
            return None
        if declared > limit[1]:
            return too_large(exceeded(limit[0], declared, limit[1]))
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
            text = say("the body must be JSON; send the header Content-Type: application/json")
            return Failure(415, "UnsupportedMediaTypeError", "Validation", text)
        return None

    def limit(self, scope: Scope) -> tuple[str, int] | None:
        """Return the bound of a request's body and its name; None where no route takes one, so that none is read."""
        if scope["method"] == "POST" and scope["path"] in WITH_INPUTS:
            return "max_body", self._bounds.max_body
        if scope["method"] == "POST" and scope["path"] in TO_ADMINISTER:
            return "max_admin_body", self._bounds.max_admin_body
        return None

    async def read(self, scope: Scope, receive: Receive, body: Body, share: bool) -> Failure | None:
        """Read a body whole, or say why not. Raises Left when the client goes away."""
        limit = self.limit(scope)
        if limit is None:
            return None
        with anyio.move_on_after(self._bounds.body_time):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Left
                piece = message.get("body", b"")
                failure = self._no_room(body, len(piece), limit, share)
                if failure is not None:
                    return failure
                body.data += piece
                if not message.get("more_body", False):
                    return self._too_many_parts(body.data)
        return Failure(408, "TimeoutError", "Validation", say("the body did not arrive in time"))

    def _too_many_parts(self, data: bytearray) -> Failure | None:
        """Refuse what Python takes a hundred times as long to make as its few bytes take to send: lists, objects,
        names.
        """
        count, limit = data.count(b"[") + data.count(b"{"), self._bounds.max_json_parts
        if count + data.count(b":") > limit:
            count += sum(1 for _ in _NAME.finditer(data))
        if count <= limit:
            return None
        return Failure(400, "BadRequestError", "Validation", exceeded("max_json_parts", count, limit))

    def _no_room(self, body: Body, more: int, limit: tuple[str, int], share: bool) -> Failure | None:
        """Count bytes that have arrived, or say which bound they are over."""
        if len(body.data) + more > limit[1]:
            return too_large(exceeded(limit[0], len(body.data) + more, limit[1]))
        memory, of_key = self._bounds.body_memory, int(self._bounds.body_memory * self._bounds.key_share)
        if self._held + more > memory:
            return _no_memory(exceeded("body_memory", self._held + more, memory))
        if share and self._held_by[body.key] + more > of_key:
            return _no_memory(
                say(
                    "bodies of this key in memory: at most {limit} bytes are allowed; the server's flags are {flags}",
                    limit=of_key,
                    flags=f"{flag_of('body_memory')}, {flag_of('key_share')}",
                )
            )
        self._held += more
        self._held_by[body.key] += more
        body.counted += more
        return None

    def replaying(self, body: Body, receive: Receive) -> Receive:
        """Return the next message for the app: the body, then the client's later messages.

        FastAPI parses and validates a body without a pause as soon as it has it. So that other requests, such as health
        checks, come between two big ones, each is handed over in another round of the event loop.
        """
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            if len(body.data) > _BIG:
                await self._turn.acquire()
                asyncio.get_running_loop().call_soon(self._turn.release)
            whole = bytes(body.data)
            body.data.clear()
            return {"type": "http.request", "body": whole, "more_body": False}

        return replay


def too_large(text: str) -> Failure:
    """413, with the bound in words."""
    return Failure(413, "RequestTooLargeError", "Validation", text)


def _no_memory(text: str) -> Failure:
    return Failure(429, "RateLimitError", "Overloaded", text, None, 1.0)
