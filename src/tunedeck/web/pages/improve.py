"""Improve: label the texts that would teach an adapter most, by keys, and train on from it with them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, final

from nicegui import ui

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say, say_plural
from tunedeck.data.check.checked import columns_of, read_rows
from tunedeck.data.table import read_table
from tunedeck.data.write import row_writer
from tunedeck.training.start_from import classifier_of
from tunedeck.web.controls import Computed, with_question
from tunedeck.web.folder import DATA
from tunedeck.web.pages.data import files_of
from tunedeck.web.pages.library import address
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, heading, same_by_hand, screen
from tunedeck.web.shelf import item_named
from tunedeck.web.workspace import Workspace

_KEYS, _AT_ONCE = 9, 100
"""Labels that have a key, and texts that one visit asks for."""


def page(work: Workspace) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return the screen that labels texts for an adapter."""

    async def improve(adapter: str = "", file: str = "") -> None:
        with screen("/") as here:
            found = item_named(work.folder, adapter)
            if found is None or found.adapter is None:
                raise ConfigError(say("{name!r} is not in the folder {path}", name=adapter, path=work.folder.root))
            heading(say("Improve {name}", name=adapter))
            folder, name = work.folder.existing(found.adapter), found.adapter
            labels = [str(one) for one in classifier_of(folder).task["labels"]]
            ui.label(say("Choose a file with texts without labels; those that it is least sure of come first."))

            def choose(event: Any) -> None:
                ui.navigate.to(address("/improve", adapter=adapter, file=event.value))

            files = files_of(work)
            if not files:
                ui.label(say("There is no data file in this folder yet.")).classes("faint")
                ui.button(say("Bring data"), on_click=lambda: ui.navigate.to("/data")).props("no-caps unelevated")
                return
            ui.select(
                files, value=file if file in files else None, label=say("In the folder"), on_change=here.on(choose)
            ).props("outlined dense").classes("w-full")
            if file:
                labelling = _Labelling(work, here, name, file, labels)
                Computed(here, lambda: labelling.pool(folder), labelling.show)
            same_by_hand(*_by_hand(name, file or "FILE"))

    return improve


def _by_hand(adapter: str, file: str) -> tuple[str, str]:
    """Return the command and the Python that choose the texts to label next."""
    command = ["label", "next", "--pool", file, "--n", str(_AT_ONCE), "--adapter", adapter]
    python = f"import tunedeck as td\n\nfound = td.label_next({file!r}, {_AT_ONCE}, adapter={adapter!r}).texts"
    return command_text(command), python


@final
class _Labelling:
    """The labels of a file's texts; each is kept at once in data/NAME-labelled.csv, which a reload finds again."""

    def __init__(self, work: Workspace, here: Screen, adapter: str, file: str, labels: Sequence[str]) -> None:
        self.work, self.here, self.adapter, self.file = work, here, adapter, file
        self.labels = list(labels)
        self.out = f"{DATA}/{Path(file).name.partition('.')[0]}-labelled.csv"
        self.given: dict[str, str] = {}
        self.texts: list[str] = []
        self.place = 0

    def pool(self, folder: Path) -> list[str]:
        """Return the texts without a label, the least sure first, and take up labels of an earlier visit."""
        kept = self.work.folder.path(self.out)
        if kept.exists():
            self.given = {str(row["text"]): str(row["label"]) for row in read_table(str(kept)).rows}
        table = read_table(str(self.work.folder.existing(self.file)))
        rows = read_rows(table, *columns_of(table, None, None), False)
        texts = [row.text for row in rows if row.text.strip() and not row.label and row.text not in self.given]
        if not texts and not self.given:
            raise DataError(say("every row of {path} has a label; choose a file with texts without", path=self.file))
        if not texts:
            return []
        from tunedeck.tasks.label_next import label_next  # loads torch

        return [one.text for one in label_next(texts, _AT_ONCE, adapter=folder).texts]

    def show(self, texts: list[str]) -> None:
        """Show one text at a time with a button for each label, and training on below."""
        self.texts = texts
        with ui.element("div").classes("box w-full"):
            self._text = ui.label().classes("text-lg").props('aria-live="polite"')
        with ui.row().classes("gap-2"):
            for number, label in enumerate(self.labels, start=1):
                key = f"{number} · " if number <= _KEYS else ""
                ui.button(key + label, on_click=self._on(lambda label=label: self._give(label))).props(
                    "no-caps outline"
                )
            ui.button("0 · " + say("Skip"), on_click=self._on(self._skip)).props("no-caps flat")
            ui.button("← " + say("Back"), on_click=self._on(self._back)).props("no-caps flat")
        self._count = ui.label().classes("faint").props("role=status")
        ui.keyboard(on_key=self._on(self._pressed))
        self._training = ui.column().classes("w-full")
        self._write()

    def _on(self, action: Callable[..., None]) -> Callable[..., Any]:
        return self.here.on(action)

    def _pressed(self, event: Any) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.alt or event.modifiers.meta:
            return
        key = str(event.key)
        if key == "0":
            self._skip()
        elif key == "ArrowLeft":
            self._back()
        elif key.isdecimal() and int(key) <= min(_KEYS, len(self.labels)):
            self._give(self.labels[int(key) - 1])

    def _give(self, label: str) -> None:
        if self.place < len(self.texts):
            self.given[self.texts[self.place]] = label
            self._save()
            self._skip()

    def _skip(self) -> None:
        self.place = min(len(self.texts), self.place + 1)
        self._write()

    def _back(self) -> None:
        self.place = max(0, self.place - 1)
        if self.place < len(self.texts) and self.given.pop(self.texts[self.place], None) is not None:
            self._save()
        self._write()

    def _save(self) -> None:
        out = self.work.folder.path(self.out)
        if not self.given:
            out.unlink(missing_ok=True)
            return
        with row_writer(out) as write:
            write([{"text": text, "label": label} for text, label in self.given.items()])

    def _write(self) -> None:
        left = self.place < len(self.texts)
        self._text.set_text(self.texts[self.place] if left else say("There are no more texts."))
        count = say_plural("{count} text labelled", "{count} texts labelled", count=len(self.given))
        self._count.set_text(f"{count} · {self.place} / {len(self.texts)} · {self.out}")
        self._training.clear()
        if self.given:
            with self._training:
                self._train_on()

    def _train_on(self) -> None:
        heading(say("Train on"), 2)
        with_question(say("Earlier examples trained along, so that what it knows is kept"), "fine-tuning")
        others = [one for one in files_of(self.work) if one not in (self.out, self.file)]
        replay = ui.select(others, label=say("Earlier data"), clearable=True).props("outlined dense").classes("w-full")

        def arguments() -> list[str]:
            out = self.work.folder.free_name("runs", f"{Path(self.adapter).parent.name or self.adapter}-more")
            earlier = ["--replay", replay.value] if replay.value else []
            return ["train", "--from", self.adapter, "--data", self.out, *earlier, "--out", out]

        def start() -> None:
            command = arguments()
            self.work.processes.start(command[-1], command)
            ui.navigate.to(address("/run", name=command[-1]))

        ui.button(say("Train on with these"), on_click=self._on(start)).props("no-caps unelevated")

        def by_hand() -> tuple[str, str]:
            changes = {"start_from": self.adapter, **({"replay": replay.value} if replay.value else {})}
            words = arguments()
            call = f"td.train_run({self.out!r}, {changes!r}, out={words[-1]!r})"
            return command_text(words), f"import tunedeck as td\n\nruns = {call}"

        change = same_by_hand(*by_hand())
        replay.on_value_change(self._on(lambda: change(*by_hand())))
