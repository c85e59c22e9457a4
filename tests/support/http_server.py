"""The server over a real socket, its keys and what tests send it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import uvicorn

from support import served_adapters
from support.waiting import SOON, eventually
from tunedeck.server.app import create_app
from tunedeck.server.auth import KeyRecord, Keys
from tunedeck.server.run import ServerSettings, open_service
from tunedeck.server.service import Service

CHAT: list[Any] = [{"role": "user", "content": "w4 w5 w6"}]
"""Messages as a client sends them; `openai` has types of its own for each role."""


@contextmanager
def listening(
    form: str, keys: Keys | None = None, root: Path | None = None, **limits: Any
) -> Iterator[tuple[str, Service]]:
    service = open_service(
        served_adapters.base_deck(form), root or served_adapters.saved_adapters(form), ServerSettings(), "tiny"
    )
    app = create_app(service, keys or Keys(None), **limits)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    context = copy_context()  # `serve` listens in the thread that chose the language
    thread = threading.Thread(target=lambda: context.run(asyncio.run, server.serve()), daemon=True)
    thread.start()
    eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", service
    server.should_exit = True
    thread.join(SOON)
    service.engine.close()


def record(name: str, **more: Any) -> KeyRecord:
    return KeyRecord(name=name, sha256=hashlib.sha256(f"{name}-key".encode()).hexdigest(), **more)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-key"}
