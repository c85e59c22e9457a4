"""Controls that screens share: a slider over steps, a "?" with the glossary's text, a place that is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, final

from nicegui import ui

from tunedeck.core.errors import StorageError, TunedeckError
from tunedeck.core.glossary import Term, terms
from tunedeck.core.i18n import language, say
from tunedeck.web.screen import Screen, box_of_error

T = TypeVar("T")


def words(*names: str) -> None:
    """Show terms of the glossary in the user's language, each with its "?"."""
    with ui.row().classes("gap-x-4 gap-y-0"):
        for name in names:
            if term := find_term(name):
                with_question(term.zh if language() == "zh" else term.name, name)


def find_term(word: str) -> Term | None:
    """Return the glossary's term behind a word or the name of a setting."""
    asked = word.lower()
    return next((one for one in terms() if asked in one.words or asked.replace("_", " ") in one.words), None)


def question(word: str) -> None:
    """Show a "?" that opens the glossary's text about a word; nothing where the glossary lacks the word."""
    term = find_term(word)
    if term is None:
        return
    button = ui.button("?").props("flat round dense size=sm").classes("question")
    button.props["aria-label"] = say("What is {word}?", word=word)
    with button, ui.menu().classes("p-3").style("max-width: 22rem"):
        ui.label(term.text)


def with_question(text: str, word: str) -> None:
    """Show a text with the glossary's "?" behind it."""
    with ui.row().classes("items-center gap-1 no-wrap"):
        ui.label(text)
        question(word)


def file_drop(here: Screen, on_upload: Callable[..., Any]) -> None:
    """Show a place to drop a file or to choose one; `on_upload` gets NiceGUI's event with the file."""
    upload = ui.upload(on_upload=here.on(on_upload), auto_upload=True).style("display: none")
    with ui.element("div").classes("box drop w-full") as place, ui.row().classes("items-center"):
        choose = ui.button(say("Choose a file"), icon="upload_file").props("no-caps outline")
        ui.label(say("or drop it here")).classes("faint")
        state = ui.label().classes("faint").props("role=status")
    uploader = f"getElement({upload.id}).$refs.qRef"
    over = f"getHtmlElement({place.id}).classList"
    choose.on("click", js_handler=f"() => {uploader}.pickFiles()")
    place.on("dragover.prevent", js_handler=f"() => {over}.add('over')")
    place.on("dragleave", js_handler=f"() => {over}.remove('over')")
    place.on(
        "drop.prevent", js_handler=f"(e) => {{ {over}.remove('over'); {uploader}.addFiles(e.dataTransfer.files) }}"
    )
    upload.on("uploading", here.on(lambda: state.set_text(say("uploading …"))), args=[])
    upload.on("finish", here.on(lambda: state.set_text("")), args=[])
    upload.on("failed", here.on(lambda: _not_uploaded()), args=[])


def _not_uploaded() -> None:
    raise StorageError(say("the file was not taken: it is too large (--max-upload), or the disk is full"))


@final
class Steps:
    """A slider over given numbers, which may be far apart."""

    def __init__(self, name: str, numbers: Sequence[int], value: int) -> None:
        self._name, self._numbers = name, numbers
        nearest = min(range(len(numbers)), key=lambda place: abs(numbers[place] - value))
        with ui.column().classes("gap-0"):
            self._label = ui.label()
            self._slider = ui.slider(min=0, max=len(numbers) - 1, step=1, value=nearest).props("markers snap")
        self._slider.props["aria-label"] = name
        self._write()
        self._slider.on_value_change(self._write)

    @property
    def value(self) -> int:
        """Return the number that was chosen."""
        return self._numbers[int(self._slider.value)]

    def on_change(self, action: Callable[..., Any]) -> None:
        """Call a function whenever another number is chosen."""
        self._slider.on_value_change(action)

    def _write(self) -> None:
        self._label.set_text(f"{self._name}: {self.value:,}")
        self._slider.props["aria-valuetext"] = f"{self.value:,}"
        self._slider.update()


@final
class Computed(Generic[T]):
    """A place of a screen that shows what a function returns; the function runs outside the event loop.

    What is asked for while it runs is computed once afterwards, with the values of that moment.
    """

    def __init__(self, here: Screen, compute: Callable[[], T], show: Callable[[T], None]) -> None:
        self._compute, self._show = compute, show
        self._asked = self._done = 0
        self._busy = False
        self._place = ui.column().classes("w-full").props('aria-live="polite"')
        self._place.style("min-height: 14rem")  # what is below it moves less when it is filled
        with self._place, ui.row().classes("items-center"):
            ui.spinner()
            ui.label(say("Computing …")).classes("faint")
        self.renew = here.on(self._renew)
        ui.timer(0.05, self.renew, once=True)

    async def _renew(self, *_: object) -> None:
        self._asked += 1
        if self._busy:
            return
        self._busy = True
        try:
            while self._done < self._asked:
                self._done = self._asked
                await self._draw()
        finally:
            self._busy = False

    async def _draw(self) -> None:
        try:
            found = await asyncio.to_thread(self._compute)
        except TunedeckError as error:
            self._place.clear()
            with self._place:
                box_of_error(error)
            return
        self._place.clear()
        with self._place:
            self._show(found)
