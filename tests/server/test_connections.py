"""Connections: how many there are, and how long one may take to say what it wants. A bare app behind the server's own
protocol.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from tunedeck.server.connections import bounded_protocol, within_descriptors
from tunedeck.serving.bounds import Bounds

SOON = 20
ASK = b"GET / HTTP/1.1\r\nHost: tiny\r\n\r\n"


@contextmanager
def listening(bounds: Bounds, inside: threading.Semaphore | None = None) -> Iterator[int]:
    """A server that answers at once; or, given a semaphore, says there that a request is inside and waits for its
    body.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if inside is not None:
            inside.release()
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(app, http=bounded_protocol(bounds), ws="none", lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = server.force_exit = True
        thread.join(SOON)


def opened(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SOON)


def answered(connection: socket.socket) -> bool:
    """Ask, and whether there was an answer; a closed connection gives none."""
    try:
        connection.sendall(ASK)
        seen = piece = connection.recv(1000)
        while piece and not seen.endswith(b"ok"):
            piece = connection.recv(1000)
            seen += piece
        return seen.startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def closed(connection: socket.socket) -> bool:
    """Wait for the other side to close; a server that does not lets the test's socket time out."""
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: ti"])
def test_a_connection_that_does_not_say_what_it_wants_is_closed(begun: bytes) -> None:
    with listening(Bounds(header_time=0.2)) as port, opened(port) as connection:
        connection.sendall(begun)
        assert closed(connection)


def test_a_head_that_comes_in_drops_after_an_answer_is_cut_off() -> None:
    with listening(Bounds(header_time=0.2)) as port, opened(port) as connection:
        assert answered(connection)
        connection.sendall(b"GET / HT")
        assert closed(connection)


def test_with_all_connections_taken_the_one_longest_without_a_request_makes_room() -> None:
    with listening(Bounds(max_connections=3)) as port:
        first, second, third = opened(port), opened(port), opened(port)
        assert all(answered(one) for one in (first, second, third))
        assert answered(first), "now the second has been idle for longest"
        newest = opened(port)
        assert answered(newest)
        assert closed(second)
        assert all(answered(one) for one in (first, third, newest))
        for one in (first, second, third, newest):
            one.close()


def test_with_every_connection_at_work_a_new_one_is_refused_and_none_is_cut() -> None:
    inside = threading.Semaphore(0)
    with listening(Bounds(max_connections=2), inside) as port:
        busy = [opened(port), opened(port)]
        for one in busy:
            one.sendall(b"POST / HTTP/1.1\r\nHost: tiny\r\nContent-Length: 1\r\n\r\n")
            assert inside.acquire(timeout=SOON)
        with opened(port) as refused:
            assert closed(refused)
        for one in busy:
            one.sendall(b"x")
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
            one.close()


def test_connections_stay_below_what_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 256))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    assert within_descriptors(Bounds()).max_connections == 256 - 64
    assert limits == [(256, 256)]
    assert within_descriptors(Bounds(max_connections=10)).max_connections == 10
