"""Use: ask an adapter about a text, or let it predict a whole file."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.data.files import is_known
from tunedeck.web.controls import file_drop
from tunedeck.web.decks import Decks
from tunedeck.web.pages.data import files_of
from tunedeck.web.screen import Screen, heading, same_by_hand, screen
from tunedeck.web.shelf import item_named
from tunedeck.web.workspace import Workspace

_PREDICTED, _EVERY_S, _SHOWN = "predicted", 1.0, 12


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen that asks a workspace's adapters."""
    decks = Decks()

    def use(adapter: str = "") -> None:
        with screen("/") as here:
            found = item_named(work.folder, adapter)
            if found is None or found.adapter is None:
                raise ConfigError(say("{name!r} is not in the folder {path}", name=adapter, path=work.folder.root))
            heading(say("Try {name}", name=adapter))
            _ask(work, here, decks, found.adapter)
            _file(work, here, found.adapter)
            name = shlex.quote(adapter)
            same_by_hand(
                f'tunedeck predict --adapter {name} "..."',
                f"import tunedeck as td\n\ndeck = td.Deck.open({adapter!r})\n"
                'deck.predict(["..."], adapter=deck.adapters[0])',
                _served(adapter, found.task),
            )

    return use


def _served(adapter: str, task: str) -> str:
    """Return how to serve an adapter, and how to ask the server for a label."""
    path = Path(adapter)
    folder, name = (path.parent.parent, path.parent.name) if path.name == "adapter" else (path.parent, path.name)
    serve = f"tunedeck serve --adapters {shlex.quote(str(folder))}"
    if task != "classify":
        return serve
    body = f'{{"model": "{name}", "input": "..."}}'
    return f"{serve}\ncurl http://127.0.0.1:8000/classify -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _ask(work: Workspace, here: Screen, decks: Decks, adapter: str) -> None:
    text = ui.textarea(say("A text")).props("outlined autogrow").classes("w-full")
    with ui.row().classes("items-center"):
        button = ui.button(say("Ask")).props("no-caps unelevated")
        waiting = ui.row().classes("items-center")
    waiting.set_visibility(False)
    with waiting:
        ui.spinner()
        ui.label(say("The first answer loads the model …")).classes("faint")
    answer = ui.column().classes("w-full").props('aria-live="polite"')

    async def ask() -> None:
        if not (text.value or "").strip():
            raise DataError(say("there is no text; type one first"))
        button.disable()
        waiting.set_visibility(True)
        try:
            found = await asyncio.to_thread(decks.answer, work.folder.existing(adapter), text.value)
        finally:
            button.enable()
            waiting.set_visibility(False)
        answer.clear()
        with answer:
            _show(found)

    button.on_click(here.on(ask))


def _show(found: Mapping[str, Any]) -> None:
    """Show a label with its probabilities, or any other answer as its names and values."""
    if "probabilities" not in found:
        for name, value in found.items():
            ui.label(f"{name}: {value}").classes("box w-full")
        return
    with ui.element("div").classes("box w-full"):
        if found.get("abstain"):
            ui.label(say("unsure") if found["abstain"] == "unsure" else say("none of these")).classes("number")
        else:
            ui.label(", ".join(found["labels"]) or str(found["label"])).classes("number")
        for name, value in sorted(found["probabilities"].items(), key=lambda one: -one[1])[:_SHOWN]:
            with ui.row().classes("w-full items-center no-wrap"):
                ui.label(name).style("width: 40%")
                ui.linear_progress(value, show_value=False).style("flex: 1")
                ui.label(f"{value:.1%}").style("width: 4rem; text-align: right")


def _file(work: Workspace, here: Screen, adapter: str) -> None:
    heading(say("A whole file"), 2)
    chosen = ui.select(files_of(work), label=say("In the folder")).props("outlined dense").classes("w-full")

    async def uploaded(event: Any) -> None:
        if not is_known(Path(event.file.name)):
            raise DataError(say("{name!r} is not a kind of file that can be read", name=event.file.name))
        name = work.folder.save(event.file.name, await event.file.read())
        chosen.set_options(files_of(work), value=name)

    file_drop(here, uploaded)
    place = ui.column().classes("w-full").props('aria-live="polite"')

    def predict() -> None:
        if not chosen.value:
            raise DataError(say("there is no file; choose one first"))
        work.folder.existing(chosen.value)
        out = work.folder.free_name(_PREDICTED, f"{Path(chosen.value).stem}.csv")
        work.processes.start(out, ["predict", "--adapter", adapter, "--file", chosen.value, "--out", out])
        place.clear()
        with place:
            _wait(work, here, out)

    ui.button(say("Predict"), on_click=here.on(predict)).props("no-caps unelevated")


def _wait(work: Workspace, here: Screen, out: str) -> None:
    """Show the state of a prediction, and its file to download once it is there."""
    state = ui.label(say("running"))

    def look() -> None:
        if work.processes.is_running(out):
            return
        timer.cancel()
        path = work.folder.path(out)
        state.set_text(out if path.exists() else work.processes.log(out) or say("ended"))
        if path.exists():
            ui.button(say("Download"), on_click=lambda: ui.download.file(path)).props("no-caps unelevated")

    timer = ui.timer(_EVERY_S, here.on(look))
