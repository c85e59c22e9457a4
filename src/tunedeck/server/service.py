"""What the routes share: the engine, the names it serves, and the way from an HTTP request to an answer and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, final

from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from tunedeck.core.errors import AdapterError
from tunedeck.core.messages import say
from tunedeck.server.auth import Caller
from tunedeck.server.metrics import Metrics
from tunedeck.serving.engine import Engine
from tunedeck.serving.names import unknown
from tunedeck.serving.request import Request
from tunedeck.tasks.answering import Chunk


@final
@dataclass
class Service:
    """One base and its adapters behind HTTP. `base` is the base's name, to which it answers bare where `base_answers`."""

    task: str
    engine: Engine
    metrics: Metrics
    base: str
    base_answers: bool
    """An encoder without a trained head has no answer of its own, nor has a graph that is an adapter's."""
    positions: int | None
    """The longest sequence in tokens; None where nothing says so."""
    timeout_s: float = 60.0
    drain_s: float = 45.0
    created_s: int = field(default_factory=lambda: int(time.time()))

    def adapter_of(self, http: HttpRequest, model: str | None) -> str | None:
        """The adapter that a request's `model` names, None for the bare base.

        Raises UnknownAdapterError for what the caller's key may not use as for what is not there.
        """
        name = self.base if model is None else model
        http.state.model = name[:200]
        if not caller_of(http).may_use(name):
            raise unknown(name)
        if name != self.base:
            return name
        if not self.base_answers:
            raise AdapterError(
                say("the bare base {model} has no answer of its own here; name an adapter as the model", model=name)
            )
        return None

    async def ask(self, http: HttpRequest, adapter: str | None, contents: Sequence[Any]) -> list[Request]:
        """Answer all contents, or raise the first error; when the client goes away, nothing of it is computed further."""
        requests = [Request(adapter, content, timeout_s=self.timeout_s) for content in contents]
        gone = asyncio.create_task(_disconnected(http))
        try:
            for request in requests:
                await run_in_threadpool(self.engine.submit, request)
            answers = asyncio.gather(*(asyncio.wrap_future(request.done) for request in requests))
            waited: set[asyncio.Future[Any]] = {answers, gone}
            await asyncio.wait(waited, timeout=self.timeout_s + 1, return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                answers.cancel()
                for request in requests:
                    request.fail_late()
                raise ClientGone if gone.done() else cast(BaseException, requests[0].done.exception(1))
            await answers
        finally:
            gone.cancel()
            for request in requests:
                if not request.done.done():
                    request.cancel()
        return requests

    async def stream(self, adapter: str | None, content: Any) -> tuple[Request, AsyncIterator[str]]:
        """Submit, wait for the first piece or the error, and return the pieces; leave the iterator to cancel."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def hand_over(piece: Chunk | None) -> None:
            with suppress(RuntimeError):  # the loop has ended before the engine
                loop.call_soon_threadsafe(pieces.put_nowait, None if piece is None else piece.text)

        request = Request(adapter, content, timeout_s=self.timeout_s, on_piece=hand_over)
        request.done.add_done_callback(lambda _: hand_over(None))
        await run_in_threadpool(self.engine.submit, request)
        try:
            first = await asyncio.wait_for(pieces.get(), self.timeout_s + 1)
        except BaseException:
            request.cancel()
            raise
        if first is None:
            error = CancelledError() if request.done.cancelled() else request.done.exception()
            if error is not None:
                raise error
        return request, _pieces(request, first, pieces)


class ClientGone(Exception):  # noqa: N818 - no error of anybody's
    """The client went away before its answer; nobody reads the response."""


def caller_of(http: HttpRequest) -> Caller:
    """Who asks; the gate has made sure that it is somebody."""
    return cast(Caller, http.state.caller)


def service_of(http: HttpRequest) -> Service:
    """The service of the app that a request came to."""
    return cast(Service, http.app.state.service)


def public_name(reference: str) -> str:
    """A base's name for clients: never a path on this machine."""
    plain = reference.rpartition(":")[2] if reference.startswith(("bundled:", "hf:", "ms:")) else reference
    return Path(plain).name if Path(plain).expanduser().exists() or plain.startswith(("/", ".", "~")) else plain


async def _pieces(request: Request, first: str | None, pieces: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    try:
        piece = first
        while piece is not None:
            yield piece
            piece = await pieces.get()
    finally:
        request.cancel()


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
