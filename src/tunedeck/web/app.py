"""`tunedeck ui`: a page on this machine over one folder. Loads no torch before something needs it."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicegui import app, ui

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason
from tunedeck.web.folder import Folder
from tunedeck.web.guard import LOCAL_HOSTS, Guard
from tunedeck.web.pages import data, deployment_cost, improve, library, run, train, training_cost, use, words
from tunedeck.web.processes import Processes
from tunedeck.web.workspace import Workspace

UPLOAD_BYTES = 1 << 30
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1f5fa8"/>'
    '<path d="M8 10h16M8 16h16M8 22h10" stroke="#fff" stroke-width="3" stroke-linecap="round"/></svg>'
)


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Where to listen, over which folder; `password_file` holds the password that others than this machine need."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    password_file: Path | None = None
    open_browser: bool = True
    upload_bytes: int = UPLOAD_BYTES


def serve_page(settings: PageSettings, before: Callable[[], None]) -> None:
    """Check the settings, call `before` and listen until Ctrl-C.

    Raises ConfigError for an address that cannot be had or that others reach without a password.
    """
    password = _password(settings)
    if not settings.folder.is_dir():
        raise ConfigError(say("there is no folder {path}; create it, or give another --folder", path=settings.folder))
    _check_free(settings)
    register(Workspace(folder := Folder(settings.folder), Processes(folder)))
    hosts = None if password is not None else LOCAL_HOSTS | {settings.host}
    app.add_middleware(Guard, hosts=hosts, password=password, upload_bytes=settings.upload_bytes)
    os.chdir(folder.root)  # a base that an adapter names by a path is found as by the commands that run here
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(folder.root / ".ui" / "nicegui"))
    before()
    ui.run(
        host=settings.host,
        port=settings.port,
        title="Tunedeck",
        favicon=_ICON,
        dark=None,
        show=settings.open_browser,
        reload=False,
        show_welcome_message=False,
        loop="asyncio",
        access_log=False,
        server_header=False,
    )


def register(work: Workspace) -> None:
    """Make the screens of a workspace the pages of this process."""
    screens: dict[str, Callable[[Workspace], Callable[..., Any]]] = {
        "/": library.page,
        "/data": data.page,
        "/train": train.page,
        "/run": run.page,
        "/use": use.page,
        "/improve": improve.page,
        "/cost": training_cost.page,
        "/cost/deployment": deployment_cost.page,
        "/words": words.page,
    }
    for path, page in screens.items():
        ui.page(path, response_timeout=60)(page(work))


def _password(settings: PageSettings) -> str | None:
    """Return the password; ConfigError for an address that others can reach without one, and for an empty file."""
    if settings.password_file is not None:
        try:
            password = settings.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                say("cannot read {path}: {reason}", path=settings.password_file, reason=system_reason(error))
            ) from error
        if not password:
            raise ConfigError(say("{path} is empty; write a password into it", path=settings.password_file))
        return password
    try:
        here = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise ConfigError(
            say(
                "{host} can be reached by others; give --password-file, or listen on 127.0.0.1",
                host=settings.host,
            )
        )
    return None


def _check_free(settings: PageSettings) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            say(
                "cannot listen on {host}:{port}: {reason}; choose another with --host or --port",
                host=settings.host,
                port=settings.port,
                reason=system_reason(error),
            )
        ) from error
