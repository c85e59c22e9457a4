"""Requests that the page refuses, over HTTP and over the websocket."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest

from tunedeck.web.guard import LOCAL_HOSTS, SESSION, Guard

HERE = {"host": "127.0.0.1:8080"}
OWN = {**HERE, "origin": "http://127.0.0.1:8080"}


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


def guard(password: str | None = None, upload_bytes: int = 100) -> Guard:
    return Guard(_inner, hosts=None if password else LOCAL_HOSTS, password=password, upload_bytes=upload_bytes)


def ask(
    to: Guard, headers: dict[str, str], method: str = "GET", path: str = "/", kind: str = "http", body: bytes = b""
) -> list[dict[str, Any]]:
    """The messages that answer a request."""
    sent: list[dict[str, Any]] = []
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": raw}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(to(scope, receive, send))
    return sent


def status(*request: Any, **more: Any) -> int:
    return int(ask(*request, **more)[0]["status"])


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "localhost"])
def test_the_page_is_there_under_its_own_names(host: str) -> None:
    assert status(guard(), {"host": host}) == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_another_name_of_this_machine_is_refused(host: str) -> None:
    assert status(guard(), {"host": host}) == 421


def test_what_changes_something_needs_the_origin_of_the_page() -> None:
    given = {"content-length": "5"}
    assert status(guard(), {**OWN, **given}, "POST") == 200
    assert status(guard(), {**HERE, **given}, "POST") == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999"):
        assert status(guard(), {**HERE, **given, "origin": origin}, "POST") == 403
        assert status(guard(), {**HERE, "origin": origin}) == 403


def test_a_websocket_of_another_origin_is_closed() -> None:
    assert ask(guard(), OWN, kind="websocket") == [{"type": "websocket.accept"}]
    for headers in (HERE, {**HERE, "origin": "http://evil.example"}):
        (sent,) = ask(guard(), headers, kind="websocket")
        assert (sent["type"], sent["code"]) == ("websocket.close", 1008)


def test_another_page_can_link_here_but_not_fetch() -> None:
    other = {**HERE, "sec-fetch-site": "cross-site"}
    assert status(guard(), {**other, "sec-fetch-mode": "navigate"}) == 200
    assert status(guard(), {**other, "sec-fetch-mode": "no-cors"}) == 403


def test_an_upload_has_a_size_and_a_limit() -> None:
    assert status(guard(), {**OWN, "content-length": "100"}, "POST") == 200
    assert status(guard(), {**OWN, "content-length": "101"}, "POST") == 413
    assert status(guard(), OWN, "POST") == 411
    assert status(guard(), {**OWN, "content-length": "-1"}, "POST") == 411


def test_every_answer_forbids_other_hosts() -> None:
    headers = dict(ask(guard(), HERE)[0]["headers"])
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http:" not in headers[b"content-security-policy"]


def log_in(to: Guard, password: str) -> list[dict[str, Any]]:
    body = urlencode({"password": password}).encode()
    return ask(to, {**OWN, "content-length": str(len(body))}, "POST", "/login", body=body)


def test_nothing_is_shown_without_the_password() -> None:
    page = guard("geheim 密码")
    (start, _) = ask(page, HERE)
    assert (start["status"], dict(start["headers"])[b"location"]) == (303, b"/login")
    (closed,) = ask(page, OWN, kind="websocket")
    assert closed["type"] == "websocket.close"
    assert log_in(page, "wrong")[0]["status"] == 403
    headers = dict(log_in(page, "geheim 密码")[0]["headers"])
    cookie = headers[b"set-cookie"].decode()
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    session = {"cookie": cookie.partition(";")[0]}
    assert status(page, {**HERE, **session}) == 200
    assert ask(page, {**OWN, **session}, kind="websocket") == [{"type": "websocket.accept"}]
    assert status(page, {**HERE, "cookie": f"{SESSION}=guessed"}) == 303


def test_guesses_of_the_password_are_counted() -> None:
    page = guard("secret")
    assert [log_in(page, "wrong")[0]["status"] for _ in range(21)] == [403] * 20 + [429]
