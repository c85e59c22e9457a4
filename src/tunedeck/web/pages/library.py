"""Adapters and runs: everything below the folder, to search, open, rename and delete."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say, say_plural
from tunedeck.core.units import format_bytes
from tunedeck.web.pages.bring import show_more
from tunedeck.web.screen import Screen, heading, same_by_hand, screen
from tunedeck.web.shelf import UNKNOWN, Item, deleted, items
from tunedeck.web.workspace import Workspace

_SHOWN = 60


def page(work: Workspace) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the screen of a workspace's adapters and runs."""

    async def library() -> None:
        with screen("/") as here:
            heading(say("Adapters and runs"))
            ui.label(str(work.folder.root)).classes("code faint")
            found = await asyncio.to_thread(items, work.folder)
            gone = await asyncio.to_thread(deleted, work.folder)
            if not found:
                _empty()
                show_more(work, here, found)
                _bin(work, here, gone)
                return
            search = (
                ui.input(say("Search")).props("outlined dense clearable debounce=200 type=search").classes("w-full")
            )
            count = ui.label().classes("faint").props("role=status")
            cards = ui.element("div").classes("cards")

            def show() -> None:
                shown = [one for one in found if one.has(search.value or "")]
                count.set_text(say_plural("{count} entry", "{count} entries", count=len(shown)))
                cards.clear()
                with cards:
                    for one in shown[:_SHOWN]:
                        _card(work, here, one)

            search.on_value_change(here.on(show))
            show()
            show_more(work, here, found)
            _bin(work, here, gone)
            same_by_hand(
                "tunedeck adapters list .", 'import tunedeck as td\n\ndeck = td.Deck.open("runs/NAME/adapter")'
            )

    return library


def _empty() -> None:
    with ui.element("div").classes("box"):
        ui.label(
            say("There is nothing here yet. Bring a file with texts and labels, and train the first adapter on it.")
        )
        ui.button(say("Bring data"), on_click=lambda: ui.navigate.to("/data")).props("no-caps unelevated").classes(
            "mt-3"
        )


def _card(work: Workspace, here: Screen, one: Item) -> None:
    running = work.processes.is_running(one.name)
    with ui.element("article").classes("box"):
        ui.label(one.name).classes("font-bold")
        known = [text for text in (one.method, one.task, one.base) if text not in ("", UNKNOWN)]
        ui.label(" · ".join([kind_name(one.kind), *known])).classes("faint")
        if one.quality is not None:
            with ui.row().classes("items-baseline gap-2"):
                ui.label(f"{one.quality:.3f}").classes("number")
                ui.label(one.metric).classes("faint")
        elif one.kind != "adapter":
            ui.label(say("running") if running else "" if one.finished else say("not finished")).classes(
                "font-semibold"
            )
        ui.label(_details(one)).classes("faint")
        with ui.row().classes("gap-1 mt-2"):
            _open(one)
            _actions(work, here, one)


def _details(one: Item) -> str:
    date = datetime.datetime.fromtimestamp(one.changed).strftime("%Y-%m-%d %H:%M")
    return " · ".join(filter(None, (format_bytes(one.bytes) if one.bytes else "", date, one.data)))


def _open(one: Item) -> None:
    if one.kind != "adapter":
        there = address("/run", name=one.name)
        ui.button(say("Open"), on_click=lambda: ui.navigate.to(there)).props("flat dense no-caps")
    if one.adapter:
        to_use = address("/use", adapter=one.adapter)
        ui.button(say("Try it"), on_click=lambda: ui.navigate.to(to_use)).props("flat dense no-caps")


def _actions(work: Workspace, here: Screen, one: Item) -> None:
    ui.button(say("Rename"), on_click=here.on(lambda: _rename(work, here, one))).props("flat dense no-caps")
    ui.button(say("Delete"), on_click=here.on(lambda: _delete(work, here, one))).props(
        "flat dense no-caps color=negative"
    )


def _rename(work: Workspace, here: Screen, one: Item) -> None:
    with ui.dialog(value=True) as dialog, ui.card().classes("w-full"):
        ui.label(say("Rename {name}", name=one.name)).classes("font-bold")
        name = ui.input(say("New name"), value=one.name.rpartition("/")[2]).props("outlined dense").classes("w-full")

        def rename() -> None:
            _check_idle(work, one)
            work.folder.rename(one.name, name.value or "")
            ui.navigate.reload()

        with ui.row():
            ui.button(say("Rename"), on_click=here.on(rename)).props("no-caps unelevated").mark("confirm")
            ui.button(say("Cancel"), on_click=dialog.close).props("no-caps flat")


def _delete(work: Workspace, here: Screen, one: Item) -> None:
    with ui.dialog(value=True) as dialog, ui.card().classes("w-full"):
        ui.label(say("Delete {name}?", name=one.name)).classes("font-bold")
        ui.label(say("It goes to the bin, from which it can be restored.")).classes("faint")

        def delete() -> None:
            _check_idle(work, one)
            work.folder.delete(one.name)
            ui.navigate.reload()

        with ui.row():
            ui.button(say("Delete"), on_click=here.on(delete)).props("no-caps unelevated color=negative").mark(
                "confirm"
            )
            ui.button(say("Cancel"), on_click=dialog.close).props("no-caps flat")


def _bin(work: Workspace, here: Screen, gone: Sequence[tuple[Path, Item]]) -> None:
    """Show what was deleted, with a button that restores it."""
    if not gone:
        return
    with ui.expansion(say("Bin")).classes("box w-full").props("dense"):
        ui.label(say("The bin is the hidden folder .bin; what is removed there is gone.")).classes("faint")
        for deletion, one in gone[:_SHOWN]:
            with ui.row().classes("items-center w-full"):
                ui.label(one.name).classes("font-bold")
                ui.label(" · ".join((kind_name(one.kind), _details(one)))).classes("faint")
                restore = here.on(lambda _, deletion=deletion, name=one.name: _restore(work, deletion, name))
                ui.button(say("Restore"), on_click=restore).props("flat dense no-caps")


def _restore(work: Workspace, deletion: Path, name: str) -> None:
    work.folder.restore(deletion, name)
    ui.navigate.reload()


def _check_idle(work: Workspace, one: Item) -> None:
    if work.processes.is_running(one.name):
        raise ConfigError(say("{name!r} is still running; wait until it ends, or stop it", name=one.name))


def kind_name(kind: str) -> str:
    """Return what a kind of folder is called."""
    return {
        "adapter": say("adapter"),
        "run": say("training run"),
        "comparison": say("comparison"),
        "race": say("race"),
    }[kind]


def address(path: str, **values: str) -> str:
    """Return a screen's address with values in its query."""
    return f"{path}?{urlencode(values)}"
