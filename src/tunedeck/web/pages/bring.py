"""More adapters on the shelf: one out of a .zip file, several merged into one, several compared."""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.web.controls import file_drop
from tunedeck.web.folder import safe_name
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, same_by_hand, table, told
from tunedeck.web.shelf import Item, metrics_of
from tunedeck.web.workspace import Workspace

_IMPORTED, _EVERY_S, _MERGEABLE = "imported", 1.0, "lora"


def show_more(work: Workspace, here: Screen, found: Sequence[Item]) -> None:
    """Show how adapters are imported, merged and compared."""
    with ui.expansion(say("Import an adapter")).classes("box w-full").props("dense"):
        _import(work, here)
    adapters = {one.name: one for one in found if one.adapter}
    if len(adapters) > 1:
        with ui.expansion(say("Compare")).classes("box w-full").props("dense"):
            _compare(work, here, adapters)
        fitting = {name: one for name, one in adapters.items() if one.method == _MERGEABLE}
        if len(fitting) > 1:
            with ui.expansion(say("Merge LoRA adapters")).classes("box w-full").props("dense"):
                _merge(work, here, fitting)


def _import(work: Workspace, here: Screen) -> None:
    ui.label(
        say(
            "A .zip file with the folder of a PEFT, AdapterHub or Tunedeck adapter. "
            "Folders copied here appear by themselves."
        )
    ).classes("faint")

    async def uploaded(event: Any) -> None:
        from tunedeck.formats.zipped import unpack_adapter  # loads torch

        name = work.folder.free_name(_IMPORTED, safe_name(Path(event.file.name).stem, default="adapter"))
        with tempfile.TemporaryDirectory() as place:
            file = Path(place, safe_name(event.file.name))  # its name is in the messages
            await event.file.save(file)
            await asyncio.to_thread(unpack_adapter, file, work.folder.path(name))
        ui.navigate.reload()

    file_drop(here, uploaded)


def _compare(work: Workspace, here: Screen, adapters: dict[str, Item]) -> None:
    chosen = ui.select(list(adapters), multiple=True, label=say("Adapters")).props("outlined dense use-chips")
    chosen.classes("w-full")
    place = ui.column().classes("w-full").props('aria-live="polite"')

    def compare() -> None:
        place.clear()
        names = list(chosen.value or ())
        metrics = {name: metrics_of(work.folder.path(str(adapters[name].adapter))) for name in names}
        every = list(dict.fromkeys(key for one in metrics.values() for key in one))
        if not names:
            return
        with place:
            rows = [[key, *(_number(metrics[name].get(key)) for name in names)] for key in every]
            about = [("method", say("method")), ("base", say("base")), ("task", say("task")), ("data", say("data"))]
            facts = [[text, *(str(getattr(adapters[name], key)) for name in names)] for key, text in about]
            table(["", *names], [*facts, *rows])
            folders = [str(adapters[name].adapter) for name in names]
            words = " ".join(f"--adapter {shlex.quote(folder)}" for folder in folders)
            ui.label(say("Each was measured on its held-out texts. To measure them on the same texts:")).classes(
                "faint"
            )
            opened = ", ".join(map(repr, folders))
            python = f'import tunedeck as td\n\nfound = td.evaluate(td.Deck.open({opened}), "FILE")'
            same_by_hand(f"tunedeck eval {words} --data FILE", python)

    chosen.on_value_change(here.on(compare))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _merge(work: Workspace, here: Screen, adapters: dict[str, Item]) -> None:
    ui.label(say("LoRA adapters of the same base, task and labels become one, the mean of their updates.")).classes(
        "faint"
    )
    chosen = ui.select(list(adapters), multiple=True, label=say("Adapters")).props("outlined dense use-chips")
    chosen.classes("w-full")
    name = ui.input(say("New name"), value="merged").props("outlined dense")
    place = ui.column().classes("w-full").props('aria-live="polite"')

    def arguments() -> list[str]:
        folders = [str(adapters[one].adapter) for one in chosen.value or ()]
        return ["adapters", "merge", *folders, "--out", safe_name(name.value or "", default="merged")]

    def by_hand() -> tuple[str, str]:
        _, _, *folders, _, out = arguments()
        return command_text(arguments()), f"import tunedeck as td\n\ntd.combine_adapters({folders!r}, {out!r})"

    def merge() -> None:
        if len(chosen.value or ()) < 2:
            raise ConfigError(say("give two or more adapter folders"))
        out = arguments()[-1]
        if work.folder.path(out).exists():
            raise ConfigError(say("{name!r} exists already; choose another name", name=out))
        work.processes.start(out, arguments())
        place.clear()
        with place, ui.row().classes("items-center"):
            ui.spinner()
            ui.label(say("running"))
        wait.activate()

    def look() -> None:
        out = arguments()[-1]
        if work.processes.is_running(out):
            return
        wait.deactivate()
        if work.folder.path(out).exists():
            ui.navigate.reload()
            return
        place.clear()
        with place, ui.element("div").classes("box error w-full").props("role=alert"):
            told(work.processes.log(out) or say("ended"))

    wait = ui.timer(_EVERY_S, here.on(look), active=False)
    ui.button(say("Merge"), on_click=here.on(merge)).props("no-caps unelevated").mark("merge")
    change = same_by_hand(*by_hand())
    for field in (chosen, name):
        field.on_value_change(here.on(lambda: change(*by_hand())))
