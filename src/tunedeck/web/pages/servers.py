"""Serve an adapter: a process of the folder, with the lines that ask it."""

from __future__ import annotations

import asyncio
import json
import shlex
import urllib.request
from pathlib import PurePosixPath
from typing import Any

from nicegui import ui

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, copied, heading, same_by_hand, told
from tunedeck.web.shelf import Item
from tunedeck.web.workspace import Workspace

_EVERY_S, _PORT = 1.0, 8000
_ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("/classify", {"input": "..."}),
    "generate": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "..."}]}),
    "embed": ("/v1/embeddings", {"input": "..."}),
    "tag": ("/entities", {"input": "..."}),
    "score": ("/v1/answers", {"input": "..."}),
}
"""The route that answers a task, and the body that asks it."""


def show_server(work: Workspace, here: Screen, found: Item) -> None:
    """Show the server of an adapter, running or to be started."""
    heading(say("Serve"), 2)
    ui.label(
        say("A server on this machine that answers other programs. It keeps running when the page is closed.")
    ).classes("faint")
    place = ui.column().classes("w-full").props('aria-live="polite"')
    _Server(work, here, found, place).show()


def server_name(folder: str, port: int) -> str:
    """Return the name of a server's process."""
    return f"server of {folder}".replace("/", " ") + f" at {port}"


class _Server:
    """A server as it is shown; its state is the process."""

    def __init__(self, work: Workspace, here: Screen, found: Item, place: Any) -> None:
        self._work, self._here, self._found, self._place = work, here, found, place
        path = PurePosixPath(str(found.adapter))
        self._folder, self._model = str(path.parent), path.name

    def show(self) -> None:
        """Show the running server of this adapter's folder, else the choice of a port."""
        self._place.clear()
        with self._place:
            name = self._running()
            if name is None:
                self._choose()
            else:
                self._run(name)

    def _running(self) -> str | None:
        for name in self._work.processes.names():
            arguments = self._work.processes.arguments(name)
            if arguments[:3] == ["serve", "--adapters", self._folder] and self._work.processes.is_running(name):
                return name
        return None

    def _choose(self) -> None:
        port = ui.number(say("Port"), value=_PORT, min=1024, max=65535, precision=0).props("outlined dense")

        async def start() -> None:
            if port.value is None or not 1024 <= port.value <= 65535:
                raise ConfigError(say("the port must be from 1024 to 65535, got {value}", value=port.value))
            chosen = int(port.value)
            if await asyncio.to_thread(answers, chosen):
                raise ConfigError(say("port {port} is taken; choose another", port=chosen))
            self._work.processes.start(server_name(self._folder, chosen), self._arguments(chosen))
            self.show()

        ui.button(say("Start the server"), on_click=self._here.on(start)).props("no-caps unelevated")
        by_hand = same_by_hand(*self._by_hand(_PORT))
        port.on_value_change(self._here.on(lambda: by_hand(*self._by_hand(int(port.value or _PORT)))))

    def _by_hand(self, port: int) -> tuple[str, str]:
        """Return the command and the Python that start the server."""
        python = (
            "from pathlib import Path\n\nimport tunedeck as td\n"
            "from tunedeck.server.run import ServerSettings, open_service, serve\n"
            "from tunedeck.tasks.registry import task_of\n\n"
            f"deck = td.Deck.load({self._found.base!r}, task_of({{'kind': {self._found.task!r}}}))\n"
            f"settings = ServerSettings(port={port})\n"
            f"serve(open_service(deck, Path({self._folder!r}), settings), settings)"
        )
        return command_text(self._arguments(port)), python

    def _arguments(self, port: int) -> list[str]:
        known = ["--model", self._found.base, "--task", self._found.task]
        return ["serve", "--adapters", self._folder, *known, "--port", str(port)]

    def _run(self, name: str) -> None:
        arguments = self._work.processes.arguments(name)
        port = int(arguments[arguments.index("--port") + 1])
        with ui.row().classes("items-center"):
            spinner = ui.spinner()
            state = ui.label(say("starting …"))
            ui.button(say("Stop the server"), on_click=self._here.on(lambda: self._work.processes.stop(name))).props(
                "no-caps outline color=negative"
            )
        log = ui.label().classes("code faint")
        asking = ui.column().classes("w-full")
        asking.set_visibility(False)
        with asking:
            for text in _asking(self._found.task, self._model, port):
                copied(text)

        async def look() -> None:
            if not self._work.processes.is_running(name):
                timer.cancel()
                last = self._work.processes.log(name)
                self.show()
                with self._place:
                    ui.label(say("The server has ended.")).props("role=status")
                    with ui.column().classes("code faint"):
                        told(last)
                return
            ready = await asyncio.to_thread(answers, port)
            spinner.set_visibility(not ready)
            asking.set_visibility(ready)
            state.set_text(say("running on http://127.0.0.1:{port}", port=port) if ready else say("starting …"))
            log.set_text("" if ready else self._work.processes.log(name).rpartition("\n")[2])

        timer = ui.timer(_EVERY_S, self._here.on(look))


def answers(port: int) -> bool:
    """Tell whether something on this machine answers requests on a port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _asking(task: str, model: str, port: int) -> tuple[str, str]:
    """Return how curl and Python ask the server."""
    route, body = _ROUTES.get(task, _ROUTES["classify"])
    asked = json.dumps({"model": model, **body}, ensure_ascii=False)
    url = f"http://127.0.0.1:{port}{route}"
    curl = f"curl {url} -H 'Content-Type: application/json' -d {shlex.quote(asked)}"
    return curl, f"import httpx\n\nhttpx.post({url!r}, json={ {'model': model, **body}!r}).json()"
