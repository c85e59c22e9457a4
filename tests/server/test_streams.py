"""A stream from its beginning to its end: a client that leaves, a time that is up, a server that drains."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support import served_adapters
from support.http_server import CHAT, listening
from support.waiting import SOON

import tunedeck as td
from tunedeck.core.errors import DeadlineError
from tunedeck.generation.sequence import Chunk, Sequence
from tunedeck.server.auth import ANYBODY
from tunedeck.server.run import ServerSettings, open_service
from tunedeck.server.service import ClientGone, Service
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.request import Request

BODY = {"model": "lora-1", "messages": CHAT, "max_tokens": 30, "stream": True}


@pytest.fixture
def service() -> Iterator[Service]:
    settings = ServerSettings(bounds=Bounds(timeout=5.0))
    opened = open_service(
        served_adapters.base_deck("causal"), served_adapters.saved_adapters("causal"), settings, "tiny"
    )
    yield opened
    opened.engine.close()


@pytest.fixture
def submitted(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """An engine that takes requests and never answers."""
    taken: list[Request] = []
    monkeypatch.setattr(service.engine, "submit", lambda *requests, **_: taken.extend(requests))
    return taken


def http(arrived_s: float, leaves: bool) -> Any:
    async def receive() -> dict[str, str]:
        if not leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return SimpleNamespace(state=SimpleNamespace(caller=ANYBODY, arrived_s=arrived_s), receive=receive)


ASKED = [Sequence("w4", td.Sampling()), Sequence("w5", td.Sampling())]


def test_a_client_that_leaves_before_the_first_token_cancels_its_requests(
    service: Service, submitted: list[Request]
) -> None:
    with pytest.raises(ClientGone):
        asyncio.run(service.stream(http(time.monotonic(), leaves=True), None, ASKED))
    assert all(request.cancelled for request in submitted)


def test_a_stream_whose_time_was_up_at_its_arrival_fails_and_cancels(
    service: Service, submitted: list[Request]
) -> None:
    with pytest.raises(DeadlineError):
        asyncio.run(service.stream(http(time.monotonic() - 5, leaves=False), None, ASKED))
    assert all(request.done.done() for request in submitted)


def test_a_stream_that_gets_no_second_piece_ends_with_an_error(service: Service, submitted: list[Request]) -> None:
    async def listen() -> list[tuple[int, Chunk | None]]:
        late = http(time.monotonic() - 5.9, leaves=False)  # the deadline and the second of grace are over in 0.1 s
        late.state.arrived_s += 1
        asked = asyncio.ensure_future(service.stream(late, None, ASKED))
        while not submitted:
            await asyncio.sleep(0)
        assert submitted[0].on_piece is not None
        submitted[0].on_piece(Chunk(0, "w7", False))
        requests, pieces = await asked
        found = [piece async for piece in pieces]
        assert all(isinstance(request.done.exception(), DeadlineError) for request in requests)
        return found

    assert sorted(asyncio.run(listen()), key=str) == [(0, Chunk(0, "w7", False)), (0, None), (1, None)]


@pytest.mark.parametrize("choices", [1, 2])
def test_a_stream_ends_with_an_error_when_the_server_has_drained(choices: int) -> None:
    with listening("causal") as (url, service):
        worker, go_on = service.engine._worker, threading.Event()
        step = worker.step

        def held() -> bool:
            """Compute the first tokens, then nothing until the engine has failed what is inside."""
            if any(request.first_token_s is not None for request in service.engine.inside()):
                go_on.wait(SOON)
            return step()

        worker.step = held  # type: ignore[method-assign]
        body = {**BODY, "n": choices, "temperature": 1.0}
        given = {"X-Request-ID": "my-stream"}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=given, timeout=SOON) as stream:
            lines = (line for line in stream.iter_lines() if line)
            assert json.loads(next(lines).removeprefix("data: "))["choices"]
            service.engine.fail_inside()
            go_on.set()
            *_, last = lines
        error = json.loads(last.removeprefix("data: "))["error"]
        assert (error["code"], error["type"], error["request_id"]) == (503, "ServiceUnavailableError", "my-stream")
        assert "shutting down" in error["message"]
