"""A backend that answers with what it was asked, and engines on it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import served_adapters
from support.waiting import SOON, eventually
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.engine import Engine, Limits
from tunedeck.serving.factory import open_batch_engine
from tunedeck.serving.request import Request


class Echo(served_adapters.FakeBackend):
    """Answers a row with its ids and its key; refuses rows that hold a 13; keeps the batches it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str | None]] = []
        self.go = threading.Event()
        self.go.set()

    def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: object = None) -> list[Any]:
        self.go.wait(SOON)
        self.batches.append(list(keys))
        if any(13 in row for row in rows):
            raise RuntimeError("unlucky")
        return [(list(row), key) for row, key in zip(rows, keys, strict=True)]


def engine_on(root: Path, backend: Any, limits: Limits, bounds: Bounds | None = None) -> Engine:
    return open_batch_engine(backend, root, adapter_bytes=10_000_000, limits=limits, bounds=bounds)


def submit(engine: Engine, adapter: str | None, content: Any, timeout_s: float = SOON) -> Request:
    request = Request(adapter, content, timeout_s=timeout_s)
    engine.submit(request)
    return request


def held_up(engine: Engine, backend: Echo) -> Request:
    """The engine inside a batch that does not end before `backend.go` is set."""
    backend.go.clear()
    first = submit(engine, None, [1])
    eventually(lambda: first.started_s is not None)
    return first
