"""Open a base and its adapters, listen, and on SIGTERM finish what came in before leaving."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import anyio
import psutil
import torch
import uvicorn
from fastapi import FastAPI
from transformers.utils import logging as transformers_logging

from tunedeck.core.compat.uvicorn import stop_server
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.native import give_back_freed_memory, keep_freed_memory
from tunedeck.core.system_reason import system_reason
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import has_labels
from tunedeck.generation.json_grammar import SchemaCompiler
from tunedeck.models.load import keep_in_memory
from tunedeck.server.app import create_app
from tunedeck.server.auth import KeyFile, Keys
from tunedeck.server.connections import bounded_protocol, within_descriptors
from tunedeck.server.log import Log, to_stderr
from tunedeck.server.metrics import Metrics
from tunedeck.server.service import Service, public_name
from tunedeck.server.tracing import tracer_of_environment
from tunedeck.serving.backends.onnx import OnnxBackend
from tunedeck.serving.backends.onnx_folders import OnnxFolders, first_settings
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.engine import Engine, Limits
from tunedeck.serving.factory import open_batch_engine, open_engine
from tunedeck.serving.workers.generate import GenerationLimits

_GIVE_BACK_S, _BUSY_S, _WORTH_IT = 5.0, 60.0, 16 << 20
"""How often to look whether there is freed memory, how often while requests run, and how many bytes are worth
it.
"""
_KEYS_AGAIN_S = 2.0
"""How often the key file is looked at."""
_WAITING, _ACCEPTED_TOGETHER = 2048, 8
"""Connections that may wait to be accepted, and how many of them are accepted in one round of the event loop."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where to listen and how much to hold; bytes and seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    key_file: Path | None = None
    adapter_bytes: int = 1 << 30
    kv_bytes: int = 1 << 30
    prompt_cache_bytes: int = 256 << 20
    drain_s: float = 45.0
    bounds: Bounds = field(default_factory=Bounds)


def open_service(deck: Deck, adapters: Path, settings: ServerSettings, name: str | None = None) -> Service:
    """Return an engine over the adapters in a folder; ConfigError when the folder is not there or the names collide."""
    base = name or public_name(deck.base.reference)
    metrics = Metrics(base)
    keep_in_memory(deck.model)
    keep_freed_memory()
    engine = open_engine(
        deck,
        adapters,
        adapter_bytes=settings.adapter_bytes,
        generation=GenerationLimits(
            kv_bytes=settings.kv_bytes,
            prompt_cache_bytes=settings.prompt_cache_bytes,
            key_share=settings.bounds.key_share,
        ),
        bounds=settings.bounds,
        listener=metrics,
    )
    answers = not (has_labels(deck.task) and deck.base.untrained)
    service = _opened(deck.task.kind, engine, metrics, base, answers, deck.positions, settings)
    service.schemas = SchemaCompiler(deck)
    return service


def open_onnx_service(
    exports: Path, precision: str, settings: ServerSettings, name: str | None = None, task: str | None = None
) -> Service:
    """Open an engine over the ONNX exports in a folder, of the task and the base that they agree on; ConfigError if
    none.
    """
    first = first_settings(exports, precision, task)
    base = name or public_name(first["base"])
    threads = torch.get_num_threads()
    metrics = Metrics(base)
    keep_freed_memory()
    engine = open_batch_engine(
        OnnxBackend(first["task"], first["base"], precision, threads),
        exports,
        layout=OnnxFolders(precision),
        adapter_bytes=settings.adapter_bytes,
        limits=Limits(batch_rows=4 * threads, wait_s=0),  # rows do not run together
        bounds=settings.bounds,
        listener=metrics,
    )
    return _opened(first["task"], engine, metrics, base, False, first.get("positions"), settings)


def _opened(
    task: str,
    engine: Engine,
    metrics: Metrics,
    base: str,
    answers: bool,
    positions: int | None,
    settings: ServerSettings,
) -> Service:
    metrics.watch(engine)
    if base in engine.store.names():
        engine.close()
        raise ConfigError(say("{name!r} is the name of the base model; rename the adapter's folder", name=base))
    return Service(task, engine, metrics, base, answers, positions, settings.bounds, settings.drain_s)


def check_address(settings: ServerSettings) -> None:
    """Raise ConfigError for an address that others can reach without a key file."""
    try:
        here = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        here = False
    if not here and settings.key_file is None:
        raise ConfigError(
            say(
                "{host} can be reached by others; give --api-key-file, or listen on 127.0.0.1",
                host=settings.host,
            )
        )


def bind(settings: ServerSettings) -> list[socket.socket]:
    """Return the sockets of the address, bound and not yet listening; ConfigError when it cannot be had."""
    check_address(settings)
    if settings.key_file is not None:
        KeyFile(settings.key_file)  # a damaged one is told before a model is loaded
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            bound.append(socket.socket(family, kind, protocol))
            bound[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound[-1].bind(address)
    except OSError as error:
        for one in bound:
            one.close()
        raise ConfigError(
            say(
                "cannot listen on {host}:{port}: {reason}; choose another with --host or --port",
                host=settings.host,
                port=settings.port,
                reason=system_reason(error),
            )
        ) from error
    return bound


def serve(service: Service, settings: ServerSettings, sockets: list[socket.socket] | None = None) -> None:
    """Listen until SIGTERM or SIGINT; then new requests get 503, those inside finish within `drain_s` seconds."""
    check_address(settings)
    key_file = None if settings.key_file is None else KeyFile(settings.key_file)
    bounds = within_descriptors(settings.bounds)
    hosts = None if key_file is not None else {"localhost", "127.0.0.1", "[::1]", settings.host, f"[{settings.host}]"}
    tracer = tracer_of_environment()
    app = create_app(service, Keys(None) if key_file is None else key_file.keys, bounds, hosts, tracer)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=bounded_protocol(bounds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        backlog=_ACCEPTED_TOGETHER,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = _Server(config)
    app.router.lifespan_context = _living(service, server, key_file)
    transformers_logging.disable_progress_bar()  # of what an adapter's loading reads
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    written = Log(to_stderr())
    gc.freeze()  # base and libraries stay: looking through them would stop every answer for a fifth of a second
    try:
        server.run(bind(settings) if sockets is None else sockets)
    finally:
        service.engine.close()
        if tracer is not None:
            tracer.close()
        written.close()


@final
class _Server(uvicorn.Server):
    """Accepts a few connections in each round of the event loop, so that requests of others come between those of a
    burst.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; asyncio takes one number both for what waits to be accepted and for what is accepted in a round."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_WAITING)


def _living(
    service: Service, server: uvicorn.Server, key_file: KeyFile | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Run the background tasks of a listening server: signals and the reloading of its key file."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        # FastAPI builds its routes, and anyio its backend, when first used: not while others wait for an answer
        app.openapi()
        await anyio.sleep(0)
        tasks: list[asyncio.Task[None]] = []

        async def drain() -> None:
            await asyncio.to_thread(service.engine.drain, service.drain_s)
            service.engine.fail_inside()
            await asyncio.sleep(0.2)  # the last answers are on their way out
            stop_server(server)

        def leave() -> None:
            if tasks:
                service.engine.fail_inside()
            else:
                tasks.append(loop.create_task(drain()))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave)
        loop.add_signal_handler(signal.SIGHUP, lambda: None if key_file is None else key_file.reload())
        looking_after = [loop.create_task(_give_back(service.engine))]
        if key_file is not None:
            looking_after.append(loop.create_task(_watch(key_file)))
        yield
        for task in looking_after:
            task.cancel()

    return lifespan


async def _give_back(engine: Engine) -> None:
    """Hand freed memory back to the system: soon when nothing runs, else once a minute, for the next batch
    wants it back.
    """
    process, given_back_s = psutil.Process(), time.monotonic()
    least = process.memory_info().rss
    while True:
        await asyncio.sleep(_GIVE_BACK_S)
        grown = process.memory_info().rss > least + _WORTH_IT
        if grown and (not engine.in_flight or time.monotonic() - given_back_s > _BUSY_S):
            gc.collect()
            await asyncio.to_thread(give_back_freed_memory)
            least, given_back_s = process.memory_info().rss, time.monotonic()


async def _watch(key_file: KeyFile) -> None:
    while True:
        await asyncio.sleep(_KEYS_AGAIN_S)
        await asyncio.to_thread(key_file.reload_if_changed)
