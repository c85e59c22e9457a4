"""Connect the routes to the engine: names of adapters, conversion of HTTP requests and of the engine's results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast, final

from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from tunedeck.core.errors import AdapterError, ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.choice import AUTO, Choice, chosen_names
from tunedeck.generation.json_grammar import JsonGrammar, SchemaCompiler
from tunedeck.generation.sequence import Chunk
from tunedeck.generation.sequence import Sequence as GeneratedSequence
from tunedeck.server.auth import Caller
from tunedeck.server.metrics import Metrics
from tunedeck.serving.bounds import Bounds, exceeded
from tunedeck.serving.engine import Engine
from tunedeck.serving.repository import unknown
from tunedeck.serving.request import Answer, Content, Request
from tunedeck.serving.workers.generate import GenerateRequest

Piece: TypeAlias = tuple[int, Chunk | None]


@final
@dataclass
class Service:
    """One base and its adapters behind HTTP. `base` is the base's name, to which it answers bare where
    `base_answers`.
    """

    task: str
    engine: Engine
    metrics: Metrics
    base: str
    base_answers: bool
    """Whether the base can answer: not an encoder without a trained head, nor the graph of an adapter."""
    positions: int | None
    """The longest sequence in tokens; None where nothing says so."""
    bounds: Bounds = field(default_factory=Bounds)
    drain_s: float = 45.0
    schemas: SchemaCompiler | None = None
    """For answers that have to fit a JSON schema, one of which is compiled at a time."""
    compiling: asyncio.Lock = field(default_factory=asyncio.Lock)
    created_s: int = field(default_factory=lambda: int(time.time()))

    def adapter_of(self, http: HttpRequest, model: str | None) -> str | None:
        """Return the adapter that a request's `model` names, None for the base model; AUTO as it is, where no adapter
        has that name.

        Raises UnknownAdapterError for what the caller's key may not use as for what is not there.
        """
        name = self.base if model is None else model
        http.state.model = name[:200]
        if name == AUTO and self.engine.chooser is not None and AUTO not in self.engine.store.names():
            return AUTO
        if not caller_of(http).may_use(name):
            raise unknown(name)
        if name != self.base:
            return name
        if not self.base_answers:
            raise AdapterError(
                say(
                    "the base model {model} cannot answer here without an adapter; name an adapter as the model",
                    model=name,
                )
            )
        return None

    async def grammar(self, schema: str) -> JsonGrammar:
        """Return the grammar of a JSON schema; ConfigError for one that is too long or cannot be used."""
        assert self.schemas is not None
        if len(schema) > self.bounds.max_schema_chars:
            raise ConfigError(exceeded("max_schema_chars", len(schema), self.bounds.max_schema_chars))
        async with self.compiling:
            return await run_in_threadpool(self.schemas.compile, schema)

    async def choose(self, http: HttpRequest, contents: Sequence[Any]) -> list[Choice]:
        """Return the adapter nearest to each content, of those that the caller may use; AdapterError where this server
        cannot choose.
        """
        chooser = self.engine.chooser
        if chooser is None:
            raise AdapterError(say("ONNX exports cannot choose an adapter; name one"))
        chosen = await run_in_threadpool(partial(chooser.choose, contents, caller_of(http).may_use))
        http.state.chosen = tuple(dict.fromkeys(choice.adapter for choice in chosen))
        return chosen

    async def requests(
        self, http: HttpRequest, adapter: str | None, contents: Sequence[Content]
    ) -> list[Request[Content, Answer]]:
        """Return the caller's inputs as requests, whose time runs from the moment they arrived."""
        timeout_s, caller, arrived_s = self.bounds.timeout, caller_of(http).name, http.state.arrived_s
        names: list[str | None] = [adapter] * len(contents)
        if adapter == AUTO and AUTO not in self.engine.store.names():
            asked = [one.prompt if isinstance(one, GeneratedSequence) else one for one in contents]
            names = [*chosen_names(await self.choose(http, asked), asked)]
        rows = zip(names, contents, strict=True)
        return [Request(name, content, timeout_s, caller, arrived_s=arrived_s) for name, content in rows]

    async def submit(self, http: HttpRequest, requests: Sequence[Request]) -> None:
        """Let the engine take all requests or none; another thread does it, for it may look at the disk."""
        most = caller_of(http).most(self.bounds)
        await run_in_threadpool(partial(self.engine.submit, *requests, most=most))

    async def ask(
        self, http: HttpRequest, adapter: str | None, contents: Sequence[Content]
    ) -> list[Request[Content, Answer]]:
        """Answer all contents, or raise the first error; when the client disconnects, the rest is cancelled.

        The caller names the type of the answers, which is that of the task.
        """
        requests: list[Request[Content, Answer]] = await self.requests(http, adapter, contents)
        answered = asyncio.ensure_future(self._answered(http, requests))
        gone = asyncio.ensure_future(_disconnected(http))
        answered.add_done_callback(_noticed)
        left_s = http.state.arrived_s + self.bounds.timeout - time.monotonic()
        try:
            await asyncio.wait({answered, gone}, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                answered.result()
            elif gone.done():
                raise ClientGone
            else:
                for request in requests:
                    request.fail_late()
                raise requests[0].late()
        finally:
            gone.cancel()
            for request in requests:
                if not request.done.done():
                    request.cancel()
        http.state.timing = _timing(requests)
        return requests

    async def _answered(self, http: HttpRequest, requests: Sequence[Request]) -> None:
        await self.submit(http, requests)
        futures = [asyncio.wrap_future(request.done) for request in requests]
        for future in futures:
            future.add_done_callback(_noticed)
        await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()

    async def stream(
        self, http: HttpRequest, adapter: str | None, sequences: Sequence[GeneratedSequence]
    ) -> tuple[list[GenerateRequest], AsyncGenerator[Piece, None]]:
        """Submit, wait for the first piece or the error, and return the pieces of all sequences as they come.

        (index, None) means that a sequence is complete or has failed. Closing the generator cancels what is under
        way, and so does a client that leaves before the first piece.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()

        def hand_over(index: int, piece: Chunk | None) -> None:
            with suppress(RuntimeError):  # the loop has ended before the engine
                loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        requests: list[GenerateRequest] = await self.requests(http, adapter, sequences)
        for index, request in enumerate(requests):
            request.on_piece = partial(hand_over, index)
            request.done.add_done_callback(lambda _, index=index: hand_over(index, None))  # type: ignore[misc]
        begun = asyncio.ensure_future(self._first(http, requests, pieces))
        gone = asyncio.ensure_future(_disconnected(http))
        begun.add_done_callback(_noticed)
        until_s = http.state.arrived_s + self.bounds.timeout
        try:
            left_s = max(0.0, until_s - time.monotonic())
            await asyncio.wait({begun, gone}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if begun.done():
                first = begun.result()
            elif gone.done():
                raise ClientGone
            else:
                for request in requests:
                    request.fail_late()
                raise requests[0].late()
        except BaseException:
            begun.cancel()
            for request in requests:
                request.cancel()
            raise
        finally:
            gone.cancel()
        return requests, _pieces(requests, first, pieces, until_s + 1)

    async def _first(self, http: HttpRequest, requests: Sequence[Request], pieces: asyncio.Queue[Piece]) -> Piece:
        await self.submit(http, requests)
        index, piece = await pieces.get()
        error = None if piece is not None else error_of(requests[index])
        if error is not None:
            raise error
        return index, piece


class ClientGone(Exception):  # noqa: N818 - no error of anybody's
    """The client disconnected before the answer; the response is not read."""


def caller_of(http: HttpRequest) -> Caller:
    """Return the caller, whom the middleware has identified."""
    return cast(Caller, http.state.caller)


def service_of(http: HttpRequest) -> Service:
    """Return the service of the app that a request came to."""
    return cast(Service, http.app.state.service)


def public_name(reference: str) -> str:
    """Return a base's name for clients: never a path on this machine."""
    plain = reference.rpartition(":")[2] if reference.startswith(("bundled:", "hf:", "ms:")) else reference
    return Path(plain).name if Path(plain).expanduser().exists() or plain.startswith(("/", ".", "~")) else plain


def error_of(request: Request) -> BaseException | None:
    """Return the error of a request that is done, None where it has an answer."""
    return CancelledError() if request.done.cancelled() else request.done.exception()


async def _pieces(
    requests: Sequence[Request], first: Piece, pieces: asyncio.Queue[Piece], until_s: float
) -> AsyncGenerator[Piece, None]:
    """Yield the first piece and the others. At `until_s` what the engine has not answered or failed by then fails
    here.
    """
    left, got = len(requests), first
    try:
        while True:
            yield got
            left -= got[1] is None
            if not left:
                return
            try:
                got = await asyncio.wait_for(pieces.get(), max(0.0, until_s - time.monotonic()))
            except asyncio.TimeoutError:
                for request in requests:
                    request.fail_late()
                got = await pieces.get()
    finally:
        for request in requests:
            if not request.done.done():
                request.cancel()


def _timing(requests: Sequence[Request]) -> tuple[float, float]:
    """Return the seconds until the last request was started, and the longest time that one was computed."""
    begun = [(one.arrived_s, one.started_s or one.arrived_s, one.ended_s or one.arrived_s) for one in requests]
    return max(start - arrival for arrival, start, _ in begun), max(end - start for _, start, end in begun)


def _noticed(future: asyncio.Future[Any]) -> None:
    """Retrieve an error that no caller waits for any more, or asyncio writes it to the log."""
    if not future.cancelled():
        future.exception()


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
