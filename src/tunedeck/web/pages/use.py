"""Use: ask an adapter, let it predict a whole file, take it away in another form, serve it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_file
from tunedeck.data.files import is_known
from tunedeck.tasks.classify.config import ClassifyConfig
from tunedeck.web.controls import file_drop
from tunedeck.web.decks import Decks
from tunedeck.web.folder import DATA
from tunedeck.web.pages.ask import Ask
from tunedeck.web.pages.data import files_of
from tunedeck.web.pages.exports import show_exports
from tunedeck.web.pages.library import address
from tunedeck.web.pages.servers import show_server
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, heading, same_by_hand, screen, told
from tunedeck.web.shelf import Item, item_named, items
from tunedeck.web.workspace import Workspace

_PREDICTED, _EVERY_S = "predicted", 1.0
_ASK_BY_HAND = {
    "generate": ("tunedeck chat --adapter {name}", 'deck.generate(["..."], adapter=deck.adapters[0])'),
    "embed": ('tunedeck embed --adapter {name} "..."', 'deck.embed(["..."], adapter=deck.adapters[0])'),
}
_PREDICT_BY_HAND = ('tunedeck predict --adapter {name} "..."', 'deck.predict(["..."], adapter=deck.adapters[0])')


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen that asks a workspace's adapters."""
    decks = Decks()

    def use(adapter: str = "", beside: str = "") -> None:
        with screen("/") as here:
            found = _adapter(work, adapter)
            other = _adapter(work, beside) if beside else None
            heading(say("Try {name}", name=adapter))
            ui.label(" · ".join(filter(None, (found.method, found.task, found.base)))).classes("faint")
            _beside(work, here, found, beside)
            chosen = [found] if other is None else [found, other]
            folders = [work.folder.existing(str(one.adapter)) for one in chosen]
            Ask(here, decks, [one.name for one in chosen], folders).show(found.task)
            _by_hand(chosen)
            if found.task == ClassifyConfig.kind:
                to_improve = address("/improve", adapter=str(found.adapter))
                ui.link(say("Improve it: label the texts that it is least sure of"), to_improve)
            if found.task not in _ASK_BY_HAND:
                _file(work, here, str(found.adapter))
            show_exports(work, here, str(found.adapter))
            show_server(work, here, found)

    return use


def _by_hand(chosen: list[Item]) -> None:
    names = [str(one.adapter) for one in chosen]
    command, python = _ASK_BY_HAND.get(chosen[0].task, _PREDICT_BY_HAND)
    command = command.format(name=" --adapter ".join(map(shlex.quote, names)))
    opened = ", ".join(map(repr, names))
    same_by_hand(command, f"import tunedeck as td\n\ndeck = td.Deck.open({opened})\n{python}")


def _adapter(work: Workspace, name: str) -> Item:
    found = item_named(work.folder, name)
    if found is None or found.adapter is None:
        raise ConfigError(say("{name!r} is not in the folder {path}", name=name, path=work.folder.root))
    return found


def _beside(work: Workspace, here: Screen, found: Item, chosen: str) -> None:
    """Show the choice of a second adapter, among those of the same base and task."""
    fitting = [one for one in items(work.folder) if one.adapter and (one.base, one.task) == (found.base, found.task)]
    names = {one.name: one.name for one in fitting if one.adapter != found.adapter}
    if not names:
        return

    def choose(event: Any) -> None:
        values = {"beside": event.value} if event.value else {}
        ui.navigate.to(address("/use", adapter=found.name, **values))

    ui.select(
        {"": say("none"), **names},
        value=chosen if chosen in names else "",
        label=say("Second adapter"),
        on_change=here.on(choose),
    ).props("outlined dense").classes("w-full")


def _file(work: Workspace, here: Screen, adapter: str) -> None:
    heading(say("A whole file"), 2)
    chosen = ui.select(files_of(work), label=say("In the folder")).props("outlined dense").classes("w-full")

    async def uploaded(event: Any) -> None:
        if not is_known(Path(event.file.name)):
            raise DataError(say("{name!r} is not a kind of file that can be read", name=event.file.name))
        name = work.folder.free_name(DATA, event.file.name)
        with replacing_file(work.folder.path(name)) as part:
            await event.file.save(part)  # a piece at a time
        chosen.set_options(files_of(work), value=name)

    file_drop(here, uploaded)
    place = ui.column().classes("w-full").props('aria-live="polite"')

    def arguments() -> list[str]:
        file = chosen.value or "FILE"
        out = work.folder.free_name(_PREDICTED, f"{Path(file).stem}.csv")
        return ["predict", "--adapter", adapter, "--file", file, "--out", out]

    def by_hand() -> tuple[str, str]:
        command = arguments()
        read = f"rows = read_table({command[4]!r}).rows\ntexts = [row[TEXT_COLUMN] for row in rows]"
        return command_text(command), (
            f"import tunedeck as td\nfrom tunedeck.data.table import read_table\n\n{read}\n"
            f"deck = td.Deck.open({adapter!r})\npredictions = deck.predict(texts, adapter=deck.adapters[0])"
        )

    def predict() -> None:
        if not chosen.value:
            raise DataError(say("choose a file first"))
        work.folder.existing(chosen.value)
        command = arguments()
        out = command[-1]
        work.processes.start(out, command)
        place.clear()
        with place:
            _wait(work, here, out)

    ui.button(say("Predict"), on_click=here.on(predict)).props("no-caps unelevated")
    change = same_by_hand(*by_hand())
    chosen.on_value_change(here.on(lambda: change(*by_hand())))
    for name in work.processes.names():  # of before the page was opened again
        started = work.processes.arguments(name)
        if started[:3] == ["predict", "--adapter", adapter] and work.processes.is_running(name):
            with place:
                _wait(work, here, name)


def _wait(work: Workspace, here: Screen, out: str) -> None:
    """Show how far a prediction is, and its file to download once it is there."""
    with ui.row().classes("items-center w-full") as row:
        ui.spinner()
        state = ui.label(say("running"))
        stop = ui.button(say("Stop"), on_click=here.on(lambda: work.processes.stop(out)))
        stop.props("no-caps outline color=negative")

    def look() -> None:
        log = work.processes.log(out)
        if work.processes.is_running(out):
            state.set_text(log.rpartition("\n")[2] or say("running"))
            return
        timer.cancel()
        path = work.folder.path(out)
        row.clear()
        with row:
            if not path.exists():
                with ui.element("div").classes("box error w-full").props("role=alert"):
                    told(log or say("ended"))
            else:
                ui.label(out)
                ui.button(say("Download"), on_click=lambda: ui.download.file(path)).props("no-caps unelevated")

    timer = ui.timer(_EVERY_S, here.on(look))
