"""Mend labels: those of a file that look wrong, each to be changed in place; the file with the changes is a new one."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from nicegui import ui

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say, say_plural
from tunedeck.data.check.checked import write_relabelled
from tunedeck.data.columns import shorten
from tunedeck.data.table import read_table
from tunedeck.data.write import ENDINGS
from tunedeck.tasks.data_check import DataCheck, Suspicion, data_check
from tunedeck.training.left_out import with_left_out
from tunedeck.web.controls import with_question
from tunedeck.web.folder import DATA
from tunedeck.web.pages.library import address
from tunedeck.web.screen import Screen, heading, same_by_hand
from tunedeck.web.workspace import Workspace

_SHOWN = 300


def show_doubts(work: Workspace, here: Screen, file: str, reference: str, text: str | None, label: str | None) -> None:
    """Show a button that looks for labels that are likely wrong, and what it finds."""
    heading(say("Labels that look wrong"), 2)
    with_question(say("A model that has not seen a row predicts its label; the least likely labels are shown."), "head")
    flags = "".join(f" --{key} {shlex.quote(value)}" for key, value in (("text", text), ("label", label)) if value)
    arguments = "".join(f", {key}={value!r}" for key, value in (("text", text), ("label", label)) if value)
    button = ui.button(say("Look for wrong labels")).props("no-caps outline")
    place = ui.column().classes("w-full").props('aria-live="polite"')
    same_by_hand(
        f"tunedeck data check {shlex.quote(file)}{flags} --suspicious",
        f"import tunedeck as td\n\nfound = td.data_check({file!r}{arguments}, suspicious=True).suspicious",
    )

    async def look() -> None:
        button.disable()
        with place, ui.row().classes("items-center"):
            ui.spinner()
            ui.label(say("Every text is read once; this can take some minutes …")).classes("faint")
        try:
            found = await asyncio.to_thread(_doubts, reference, text, label)
        finally:
            button.enable()
            place.clear()
        with place:
            _Mending(work, here, file, reference, str(label), found).show()

    button.on_click(here.on(look))


def _doubts(reference: str, text: str | None, label: str | None) -> DataCheck:
    """Return the check with the base that reads the language of the texts. Loads torch."""
    columns = {key: value for key, value in (("text", text), ("label", label)) if value}
    model = with_left_out({"data": {"train": reference, **columns}}, lambda note: None)["model"]
    return data_check(reference, text=text, label=label, model=model, suspicious=True)


@final
class _Mending:
    """The suspicious labels of a file and the labels that were chosen instead, by row number."""

    def __init__(self, work: Workspace, here: Screen, file: str, reference: str, column: str, found: DataCheck) -> None:
        self.work, self.here, self.file, self.reference, self.column = work, here, file, reference, column
        self.found = found
        self.chosen: dict[int, str] = {}

    def show(self) -> None:
        """Show each doubtful label with the likelier one, and the button that saves."""
        if not self.found.suspicious:
            ui.label(say("No label looks wrong."))
            return
        names = list(self.found.files[0].labels)
        for one in self.found.suspicious:
            self._row(one, names)
        self._save = ui.button(on_click=self.here.on(self._write)).props("no-caps unelevated")
        self._count()

    def _row(self, one: Suspicion, names: list[str]) -> None:
        with ui.element("div").classes("box w-full"):
            ui.label(shorten(one.text, _SHOWN))
            ui.label(
                say(
                    "row {row}: {label} ({probability:.0%}), likelier {suggested} ({likelier:.0%})",
                    row=one.row,
                    label=one.label,
                    probability=one.probability,
                    suggested=one.suggested,
                    likelier=one.suggested_probability,
                )
            ).classes("faint")
            with ui.row().classes("items-center"):
                options = names if one.label in names else [one.label, *names]
                choice = ui.select(options, value=one.label, label=say("label")).props("outlined dense")
                choice.on_value_change(self.here.on(lambda event: self._change(one, event.value)))
                button = ui.button(say("Change to {label}", label=one.suggested)).props("no-caps flat")
                button.on_click(lambda: choice.set_value(one.suggested))

    def _change(self, one: Suspicion, label: str) -> None:
        if label == one.label:
            self.chosen.pop(one.row, None)
        else:
            self.chosen[one.row] = label
        self._count()

    def _count(self) -> None:
        self._save.set_text(
            say_plural(
                "Save {count} change as a new file", "Save {count} changes as a new file", count=len(self.chosen)
            )
        )
        self._save.set_enabled(bool(self.chosen))

    async def _write(self) -> None:
        name = mended_name(self.work, self.file, "mended")
        await asyncio.to_thread(_write, self.reference, self.work.folder.path(name), self.column, dict(self.chosen))
        ui.navigate.to(address("/data", file=name))


def mended_name(work: Workspace, file: str, word: str) -> str:
    """Return a free name below data/ for a changed copy of a file, CSV where its kind cannot be written."""
    path = Path(file.removeprefix("bundled:"))
    ending = path.suffix.lower() if path.suffix.lower() in ENDINGS else ".csv"
    return work.folder.free_name(DATA, f"{path.name.partition('.')[0]}-{word}{ending}")


def _write(reference: str, out: Path, column: str, labels: Mapping[int, str]) -> None:
    table: Any = read_table(reference)
    if not labels or max(labels) > len(table.rows):
        raise DataError(say("the file has changed meanwhile; look for wrong labels again"))
    write_relabelled(table, out, column, labels)
