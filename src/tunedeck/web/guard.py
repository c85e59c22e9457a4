"""Check each request before the page sees it: its origin, host name, password and upload size."""

from __future__ import annotations

import hmac
import html
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, final
from urllib.parse import parse_qs, urlsplit

from tunedeck.core.i18n import say

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = frozenset(["localhost", "127.0.0.1", "[::1]"])
SESSION, LOGIN = "tunedeck_session", "/login"
_READING = ("GET", "HEAD")
_LONGEST_LOGIN, _GUESSES_A_MINUTE = 4096, 20
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
"""Sent with every answer: browsers then load nothing from other hosts and show the page in no other page's frame."""


@final
class Guard:
    """An ASGI layer that refuses what other pages, other hosts' names or strangers send.

    `hosts` are the names under which the page may be asked for, None for any; `password` is None on loopback.
    """

    def __init__(
        self, app: Application, *, hosts: frozenset[str] | None, password: str | None, upload_bytes: int
    ) -> None:
        self._app, self._hosts, self._password, self._upload_bytes = app, hosts, password, upload_bytes
        self._sessions: set[str] = set()
        self._wrong: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(scope, send, *refused)
        elif self._password is not None and scope.get("path") == LOGIN and scope["type"] == "http":
            await self._log_in(scope, receive, send, self._password)
        elif self._password is not None and _cookie(headers, SESSION) not in self._sessions:
            await _answer(scope, send, 303, "", [("location", LOGIN)])
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and reason of a request that is refused."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and re.sub(r":\d+$", "", host) not in self._hosts:
            return 421, "unknown host"
        changes = scope["type"] == "websocket" or scope["method"] not in _READING
        if (changes and origin is None) or (origin is not None and urlsplit(origin).netloc != host):
            return 403, "another origin"
        opens = headers.get("sec-fetch-mode") == "navigate" and not changes
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not opens:
            return 403, "another origin"
        if scope["type"] == "http" and changes:
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return 411, "content-length is required"
            if int(length) > self._upload_bytes:
                return 413, "too large"
        return None

    async def _log_in(self, scope: Scope, receive: Receive, send: Send, password: str) -> None:
        if scope["method"] in _READING:
            await _answer(scope, send, 200, _login_page(""), [("content-type", "text/html; charset=utf-8")])
            return
        now = time.monotonic()
        self._wrong = [at for at in self._wrong if now - at < 60]
        given = parse_qs(await _body(receive)).get("password", [""])[0]
        if len(self._wrong) >= _GUESSES_A_MINUTE:
            await _answer(scope, send, 429, say("too many wrong passwords; wait a minute"))
        elif hmac.compare_digest(given.encode(), password.encode()):
            token = secrets.token_urlsafe(32)
            self._sessions.add(token)
            cookie = f"{SESSION}={token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(scope, send, 303, "", [("location", "/"), ("set-cookie", cookie)])
        else:
            self._wrong.append(now)
            page = _login_page(say("this password is wrong"))
            await _answer(scope, send, 403, page, [("content-type", "text/html; charset=utf-8")])


def _cookie(headers: dict[str, str], name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _login_page(note: str) -> str:
    title, field, button = (html.escape(one) for one in ("Tunedeck", say("password"), say("Log in")))
    return (
        f"<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>"
        "<style>body{font:1rem system-ui;max-width:20rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}"
        "input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.3rem 0}</style>"
        f"<h1>{title}</h1><form method=post action={LOGIN}><label>{field}"
        f"<input type=password name=password autofocus autocomplete=current-password></label>"
        f"<button>{button}</button><p role=alert>{html.escape(note)}</p></form>"
    )


async def _body(receive: Receive) -> str:
    body = b""
    while len(body) <= _LONGEST_LOGIN:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body[:_LONGEST_LOGIN].decode("utf-8", "replace")


async def _answer(
    scope: Scope, send: Send, status: int, text: str, headers: list[tuple[str, str]] | None = None
) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    given = {"content-type": "text/plain; charset=utf-8", **dict(headers or ()), **HEADERS}
    raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": text.encode()})


def _with_headers(send: Send) -> Send:
    added = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in HEADERS.items()]

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sent
