"""Data: bring a file or choose one, see what is in it and what is wrong with it."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.core.bundle import read_bundles
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say, say_plural
from tunedeck.core.units import format_bytes
from tunedeck.data.check.checked import columns_of
from tunedeck.data.columns import shorten
from tunedeck.data.files import is_known
from tunedeck.data.table import Table, read_table
from tunedeck.tasks.data_check import DataCheck, data_check
from tunedeck.web.controls import file_drop
from tunedeck.web.pages.library import address
from tunedeck.web.pages.mend import show_doubts
from tunedeck.web.screen import Screen, box_of_error, facts, heading, same_by_hand, screen, table
from tunedeck.web.workspace import Workspace

_BUNDLED, _PREVIEW, _CELL, _LISTED = "bundled:", 6, 160, 40


def page(work: Workspace) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return the screen of a workspace's data files: the choice of one, or one with its preview and check."""

    async def data(file: str = "", text: str = "", label: str = "") -> None:
        with screen("/data") as here:
            heading(say("Data"))
            if file:
                await _show(work, here, file, text or None, label or None)
            else:
                _choose(work, here)

    return data


def reference_of(work: Workspace, file: str) -> str:
    """Return what a file of the page is for the data functions: a bundled name, or a path inside the folder."""
    if file.startswith(_BUNDLED):
        if file.removeprefix(_BUNDLED) not in bundled_names():
            raise DataError(say("there is no bundled data set {name!r}", name=file))
        return file
    return str(work.folder.existing(file))


def bundled_names() -> list[str]:
    """Return the names of the bundled data sets."""
    return list(read_bundles("tunedeck.data"))


def files_of(work: Workspace) -> list[str]:
    """Return the names of the data files in the folder and in its data/."""
    root = work.folder.root
    found = [file for place in (root, root / "data") if place.is_dir() for file in place.iterdir()]
    kept = [file for file in found if file.is_file() and is_known(file) and not file.name.startswith(".")]
    return [work.folder.name(file) for file in sorted(kept, key=lambda file: -file.stat().st_mtime)]


def _open(file: str) -> None:
    ui.navigate.to(address("/data", file=file))


def _choose(work: Workspace, here: Screen) -> None:
    ui.label(say("A file with texts in one column and labels in another: CSV, Excel, JSON lines, Parquet and more."))

    async def uploaded(event: Any) -> None:
        if not is_known(Path(event.file.name)):
            raise DataError(say("{name!r} is not a kind of file that can be read", name=event.file.name))
        _open(work.folder.save(event.file.name, await event.file.read()))

    file_drop(here, uploaded)
    with ui.element("div").classes("cards"):
        with ui.element("div").classes("box"):
            heading(say("In the folder"), 2)
            names = files_of(work)
            if not names:
                ui.label(say("There is no data file in this folder yet.")).classes("faint")
            for name in names[:_LISTED]:
                size = format_bytes(work.folder.path(name).stat().st_size)
                ui.link(f"{name} ({size})", address("/data", file=name)).classes("block py-1")
        with ui.element("div").classes("box"):
            heading(say("Bundled examples"), 2)
            for name, bundle in read_bundles("tunedeck.data").items():
                ui.link(name, address("/data", file=_BUNDLED + name)).classes("block pt-1")
                ui.label(bundle.description).classes("faint text-sm pb-1")
        with ui.element("div").classes("box"):
            heading(say("Paste"), 2)
            ui.label(hint := say("Rows with commas or tabs, the column names first")).classes("faint")
            pasted = ui.textarea(placeholder="text,label").props("outlined dense").classes("w-full")
            pasted.props["aria-label"] = hint

            def paste() -> None:
                content = (pasted.value or "").strip()
                if not content:
                    raise DataError(say("there is nothing to save; paste rows first"))
                ending = "tsv" if "\t" in content.splitlines()[0] else "csv"
                _open(work.folder.save(f"pasted.{ending}", (content + "\n").encode()))

            ui.button(say("Save and look at it"), on_click=here.on(paste)).props("no-caps unelevated").classes("mt-3")
    same_by_hand(*_by_hand("FILE", {}))


async def _show(work: Workspace, here: Screen, file: str, text: str | None, label: str | None) -> None:
    reference = reference_of(work, file)
    found = await asyncio.to_thread(read_table, reference)
    ui.label(file).classes("code")
    for note in found.notes:
        ui.label(note).classes("faint")
    heading(say_plural("{count} row", "{count} rows", count=len(found.rows)), 2)
    columns = list(found.columns)
    table(columns, [[shorten(_cell(row[one]), _CELL) for one in columns] for row in found.rows[:_PREVIEW]])
    guessed = _guess(found, text, label)
    chosen = _columns(here, file, columns, *guessed)
    with ui.row():
        to_train = address("/train", file=file, **{key: value for key, value in chosen.items() if value})
        ui.button(say("Train on this"), on_click=lambda: ui.navigate.to(to_train)).props("no-caps unelevated")
        ui.button(say("Another file"), on_click=lambda: ui.navigate.to("/data")).props("no-caps flat")
    report = ui.column().classes("w-full").props('aria-live="polite"')
    with report, ui.row().classes("items-center"):
        ui.spinner()
        ui.label(say("Looking for problems …")).classes("faint")

    async def check() -> None:
        try:
            checked = await asyncio.to_thread(data_check, reference, text=chosen["text"], label=chosen["label"])
        except (DataError, ConfigError) as error:
            report.clear()
            with report:
                box_of_error(error)
            return
        report.clear()
        with report:
            _report(checked)

    ui.timer(0.05, here.on(check), once=True)
    if guessed[1] in columns:
        show_doubts(work, here, file, reference, *guessed)
    same_by_hand(*_by_hand(file, chosen))


def _by_hand(file: str, columns: Mapping[str, str | None]) -> tuple[str, str]:
    """Return the command and the Python that check a file."""
    flags = "".join(f" --{key} {shlex.quote(value)}" for key, value in columns.items() if value)
    arguments = "".join(f", {key}={value!r}" for key, value in columns.items() if value)
    python = f"import tunedeck as td\n\nfound = td.data_check({file!r}{arguments})"
    return f"tunedeck data check {shlex.quote(file)}{flags}", python


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _guess(found: Table, text: str | None, label: str | None) -> tuple[str | None, str | None]:
    """Return the columns that were chosen or guessed; what cannot be guessed is left to be chosen."""
    try:
        return columns_of(found, text, label)
    except DataError:
        return text, label


def _columns(here: Screen, file: str, columns: list[str], text: str | None, label: str | None) -> dict[str, str | None]:
    chosen = {"text": text, "label": label}
    with ui.row().classes("w-full items-center"):
        for key, name in (("text", say("Column of the texts")), ("label", say("Column of the labels"))):

            def choose(event: Any, key: str = key) -> None:
                values = {**chosen, key: event.value}
                ui.navigate.to(address("/data", file=file, **{one: value for one, value in values.items() if value}))

            value = chosen[key] if chosen[key] in columns else None
            ui.select(columns, value=value, label=name, on_change=here.on(choose)).props("outlined dense").classes(
                "w-64 max-w-full"
            )
    return chosen


def _report(checked: DataCheck) -> None:
    (file,) = checked.files
    middle, late, longest = file.lengths
    heading(say("What is in it"), 2)
    facts(
        [
            (say("rows"), f"{file.rows:,}"),
            (
                say("characters of a text"),
                say(
                    "median {middle:,}, 95 % below {late:,}, longest {longest:,}",
                    middle=middle,
                    late=late,
                    longest=longest,
                ),
            ),
            (say("labels"), f"{len(file.labels):,}"),
        ]
    )
    total = sum(file.labels.values()) or 1
    if file.labels:
        rows = [[name, f"{count:,}", f"{count / total:.1%}"] for name, count in file.labels.items()]
        table([say("label"), say("texts"), say("share")], rows, numbers_from=1)
    heading(say("Problems"), 2)
    if not file.findings:
        ui.label(say("Nothing was found."))
    for finding in file.findings:
        with ui.element("div").classes("box w-full"):
            ui.label(finding.text)
            for example in finding.examples:
                ui.label(example).classes("faint")
