"""What several screens share: a slider over steps, a "?" with the glossary's text, a place that is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, final

from nicegui import ui

from tunedeck.core.errors import TunedeckError
from tunedeck.core.glossary import terms
from tunedeck.core.i18n import say
from tunedeck.web.screen import Screen, box_of_error

T = TypeVar("T")


def question(word: str) -> None:
    """Show a "?" that opens the glossary's text about a word; nothing where the glossary lacks the word."""
    asked = word.lower()
    term = next((one for one in terms() if asked in one.words or asked.replace("_", " ") in one.words), None)
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


@final
class Steps:
    """A slider over given numbers, which may lie far apart."""

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
