"""The gate: what it refuses, what it reads, what it adds. Requests are handed to it message by message."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Awaitable
from typing import Any

import pytest
from support.asgi_requests import JSON, Asked, answering, ask, gate
from support.http_server import bearer, record

from tunedeck.server import bodies
from tunedeck.server.auth import Keys
from tunedeck.server.errors import failure_of
from tunedeck.serving.bounds import Bounds, current_bounds

Step = dict[str, Any] | Awaitable[Any]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/ready"), ("POST", "/nothing"), ("DELETE", "/v1/adapters/a")]
)
def test_no_body_is_read_where_no_route_takes_one(method: str, path: str) -> None:
    asked = ask(gate(), method, path, {"Content-Length": "3999999"}, [b"x" * 1000] * 4)
    assert asked.status == 200, "the app's own answer"
    assert asked.read == 0


def test_a_body_for_the_health_check_is_neither_read_nor_handed_on() -> None:
    asked = ask(gate(), "POST", "/health", {"Content-Length": "3999999"}, [b"x" * 1000] * 4)
    assert (asked.status, asked.read) == (405, 0)


@pytest.mark.parametrize(
    ("path", "flag", "limit"),
    [("/classify", "--max-body", Bounds().max_body), ("/v1/adapters", "--max-admin-body", 16_384)],
)
def test_a_body_that_says_it_is_too_long_is_refused_unread_by_its_routes_bound(
    path: str, flag: str, limit: int
) -> None:
    asked = ask(gate(), "POST", path, {**JSON, "Content-Length": str(limit + 1)}, [b"x"])
    assert (asked.status, asked.read) == (413, 0)
    assert flag in asked.error["message"]
    assert str(limit) in asked.error["message"]
    assert ask(gate(), "POST", path, {**JSON, "Content-Length": str(limit)}, [b"x" * limit]).status == 200


def test_a_body_that_grows_too_long_is_read_no_further() -> None:
    pieces = [b"x" * 100] * 50
    asked = ask(
        gate(bounds=Bounds(max_body=1000)), "POST", "/classify", {**JSON, "Transfer-Encoding": "chunked"}, pieces
    )
    assert (asked.status, asked.read) == (413, 11)


def test_a_body_that_does_not_end_is_408() -> None:
    asked = ask(gate(bounds=Bounds(body_time=0.05)), "POST", "/classify", {**JSON, "Content-Length": "9"}, [b"x", b""])
    assert asked.status == 408


def test_all_bodies_in_memory_together_are_bounded_and_given_back() -> None:
    async def run() -> None:
        inside, go = asyncio.Event(), asyncio.Event()

        async def holding(scope: Any, receive: Any, send: Any) -> None:
            inside.set()
            await go.wait()
            await answering(scope, receive, send)

        through = gate(holding, bounds=Bounds(body_memory=1500))
        body = {**JSON, "Content-Length": "1000"}
        first, second, third = (Asked("POST", "/classify", body, [b"x" * 1000]) for _ in range(3))
        running = asyncio.create_task(through(first.scope, first.receive, first.send))
        await inside.wait()
        await through(second.scope, second.receive, second.send)
        assert second.status == 429
        assert "--body-memory" in second.error["message"]
        go.set()
        await running
        await through(third.scope, third.receive, third.send)
        assert (first.status, third.status) == (200, 200)
        assert through._bodies.held == 0

    asyncio.run(asyncio.wait_for(run(), 20))


def test_one_key_may_hold_its_share_of_the_bodies_memory_and_no_more() -> None:
    body = {**JSON, "Content-Length": "600"}
    bounds = Bounds(body_memory=1000, key_share=0.5)
    two, one = Keys([record("team"), record("other")]), Keys([record("team")])
    refused = ask(gate(keys=two, bounds=bounds), "POST", "/classify", {**body, **bearer("team")}, [b"x" * 600])
    assert refused.status == 429
    assert "--key-share" in refused.error["message"]
    assert (
        ask(gate(keys=one, bounds=bounds), "POST", "/classify", {**body, **bearer("team")}, [b"x" * 600]).status == 200
    )


def test_between_two_big_bodies_other_requests_have_their_turn() -> None:
    order: list[str] = []

    async def parsing(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/classify":
            await receive()
            order.append("big")
        else:
            order.append("small")

    async def run() -> None:
        through = gate(parsing)
        length = bodies._BIG + 1
        bigs = [Asked("POST", "/classify", JSON, [b"x" * length]) for _ in range(3)]
        tasks = [asyncio.create_task(through(one.scope, one.receive, one.send)) for one in bigs]
        while "big" not in order:
            await asyncio.sleep(0)
        health = Asked("GET", "/health", {})
        tasks.append(asyncio.create_task(through(health.scope, health.receive, health.send)))
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert order.index("small") < 3, order
    assert sorted(order) == ["big", "big", "big", "small"]


def test_a_body_that_is_not_declared_as_json_is_415_and_told_why() -> None:
    for kind in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        asked = ask(gate(), "POST", "/classify", {**kind, "Content-Length": "2"}, [b"{}"])
        assert (asked.status, asked.read) == (415, 0)
        assert "Content-Type: application/json" in asked.error["message"]
    kinds = ("application/json; charset=utf-8", "application/problem+json")
    assert all(
        ask(gate(), "POST", "/classify", {"Content-Type": kind, "Content-Length": "2"}, [b"{}"]).status == 200
        for kind in kinds
    )


def test_two_lengths_of_one_body_are_refused_and_the_connection_is_closed() -> None:
    both = {**JSON, "Content-Length": "2", "Transfer-Encoding": "chunked"}
    asked = ask(gate(), "POST", "/classify", both, [b"{}"])
    assert asked.status == 400
    assert asked.headers["connection"] == "close"


def test_a_server_without_keys_answers_to_its_own_names_alone() -> None:
    through = gate(hosts={"localhost", "127.0.0.1", "[::1]"})
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert ask(through, "GET", "/health", {"Host": host}).status == 200, host
    for host in ("evil.example", "localhost.evil.example:8000", "", "[::2]"):
        asked = ask(through, "GET", "/v1/models", {"Host": host})
        assert asked.status == 421, host
    assert "localhost" in asked.error["message"]


def test_a_request_id_comes_in_and_goes_out_and_what_is_none_is_replaced() -> None:
    assert ask(gate(), "GET", "/health", {"X-Request-ID": "my-id.7"}).headers["x-request-id"] == "my-id.7"
    made = {
        ask(gate(), "GET", "/health", given).headers["x-request-id"] for given in ({}, {"X-Request-ID": "a b\u007f"})
    }
    assert all(len(one) == 32 for one in made)
    assert len(made) == 2
    assert ask(gate(keys=Keys([record("a")])), "GET", "/ready", {"X-Request-ID": "i"}).headers["x-request-id"] == "i"


def test_times_that_a_route_tells_are_in_the_headers_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def timed(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["timing"], scope["state"]["model"] = (0.5, 0.25), "law"
        await answering(scope, receive, send)

    caplog.set_level(logging.INFO, "tunedeck.server")
    asked = ask(gate(timed), "POST", "/classify", {**JSON, "X-Request-ID": "i", "Content-Length": "1"}, [b"x"])
    assert (asked.headers["x-queue-ms"], asked.headers["x-compute-ms"]) == ("500.0", "250.0")
    line = json.loads(caplog.records[-1].getMessage())
    expected = {"request_id": "i", "client": "10.0.0.7", "method": "POST", "path": "/classify", "status": 200}
    assert (
        line.items() >= {**expected, "key": "anybody", "model": "law", "queue_ms": 500.0, "compute_ms": 250.0}.items()
    )
    assert {"time", "ms"} <= set(line)


def test_refusals_are_logged_with_the_clients_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tunedeck.server")
    ask(gate(keys=Keys([record("a")])), "GET", "/ready", {})
    line = json.loads(caplog.records[-1].getMessage())
    assert (line["status"], line["client"], line["key"]) == (401, "10.0.0.7", None)


def test_an_unexpected_error_is_logged_once_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(*_: Any) -> None:
        raise RuntimeError("the secret of /srv")

    asked = ask(gate(failing), "GET", "/health", {})
    assert asked.status == 500
    assert "secret" not in str(asked.answer)
    assert [one.exc_info is not None for one in caplog.records if one.levelno >= logging.ERROR] == [True]


def test_the_gate_says_which_bounds_hold() -> None:
    seen: list[Bounds] = []

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_bounds.get())
        await answering(scope, receive, send)

    ask(gate(looking, bounds=Bounds(max_inputs=7)), "GET", "/health", {})
    assert [one.max_inputs for one in seen] == [7]


def test_wrong_keys_of_one_address_are_slowed_down_and_the_right_one_is_not() -> None:
    through = gate(keys=Keys([record("team")]))
    statuses = [ask(through, "GET", "/ready", bearer("wrong")).status for _ in range(25)]
    assert statuses == [401] * 20 + [429] * 5
    assert ask(through, "GET", "/ready", bearer("team")).status == 200
    assert ask(through, "GET", "/ready", {}).status == 401, "no key is no guess"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_descriptors_left_is_503_for_now_and_another_error_of_a_file_is_500(number: int) -> None:
    failure = failure_of(OSError(number, "Too many open files"))
    assert (failure.status, failure.retry_after_s) == (503, 5.0)
    assert failure_of(OSError(errno.EIO, "Input/output error")).status == 500


@pytest.mark.parametrize("part", [b"[1],", b"{ ", b'"a":1,', b'"a" \t:1,'])
def test_a_body_of_more_parts_than_python_makes_in_time_is_refused_unparsed(part: bytes) -> None:
    few, many = part * 10, part * 50_001
    asked = ask(gate(), "POST", "/classify", {**JSON, "Content-Length": str(len(many))}, [many])
    assert asked.status == 400
    assert "--max-json-parts" in asked.error["message"]
    assert ask(gate(), "POST", "/classify", {**JSON, "Content-Length": str(len(few))}, [few]).status == 200
