"""Ask an adapter, or two beside each other: labels, scores, entities in the text, likeness, or a conversation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from nicegui import ui

from tunedeck.core.errors import DataError, TunedeckError
from tunedeck.core.i18n import say
from tunedeck.web.decks import Decks, Turns
from tunedeck.web.screen import Screen

_SHOWN, _EVERY_S = 12, 0.1


@final
class Ask:
    """The place of a screen where adapters answer; `names` and `folders` are theirs, the first the screen's own."""

    def __init__(self, here: Screen, decks: Decks, names: Sequence[str], folders: Sequence[Path]) -> None:
        self._here, self._decks, self._names, self._folders = here, decks, names, folders

    def show(self, task: str) -> None:
        """Show what suits a task."""
        if task == "generate":
            self._conversation()
        elif task == "embed":
            self._likeness()
        else:
            self._texts()

    def _texts(self) -> None:
        text = ui.textarea(say("A text")).props("outlined autogrow").classes("w-full")

        async def ask(answer: Any) -> None:
            given = _given(text.value)
            found = await asyncio.to_thread(self._decks.answers, self._folders, given)
            answer.clear()
            with answer:
                for name, one in zip(self._names, found, strict=True):
                    with self._box(name):
                        _show(given, one)

        self._button(say("Ask"), ask)

    def _likeness(self) -> None:
        first = ui.textarea(say("A text")).props("outlined autogrow").classes("w-full")
        second = ui.textarea(say("Another text")).props("outlined autogrow").classes("w-full")

        async def ask(answer: Any) -> None:
            given = (_given(first.value), _given(second.value))
            found = await asyncio.to_thread(self._decks.similarities, self._folders, *given)
            answer.clear()
            with answer:
                for name, one in zip(self._names, found, strict=True):
                    with self._box(name):
                        ui.label(f"{one:.3f}").classes("number")
                        ui.label(say("cosine similarity of the two texts")).classes("faint")

        self._button(say("Compare"), ask)

    def _button(self, text: str, ask: Callable[[Any], Any]) -> None:
        """Show a button and what it does meanwhile; the answer's place is handed to `ask`."""
        with ui.row().classes("items-center"):
            button = ui.button(text).props("no-caps unelevated")
            waiting = _waiting()
        answer = ui.element("div").classes("cards").props('aria-live="polite"')

        async def pressed() -> None:
            button.disable()
            waiting.set_visibility(True)
            try:
                await ask(answer)
            finally:
                button.enable()
                waiting.set_visibility(False)

        button.on_click(self._here.on(pressed))

    def _box(self, name: str) -> Any:
        box = ui.element("div").classes("box")
        if len(self._names) > 1:
            with box:
                ui.label(name).classes("font-bold")
        return box

    def _conversation(self) -> None:
        columns = ui.element("div").classes("cards").style("--least: 26rem").props('role=log aria-live="polite"')
        with columns:
            places = []
            for name in self._names:
                with self._box(name):
                    places.append(ui.column().classes("w-full gap-2"))
                    with places[-1]:
                        ui.label(say("No message yet.")).classes("faint")
        text = ui.textarea(say("Your message")).props("outlined autogrow").classes("w-full")
        with ui.row().classes("items-center"):
            send = ui.button(say("Send")).props("no-caps unelevated")
            stop = ui.button(say("Stop")).props("no-caps outline color=negative")
            over = ui.button(say("Start over")).props("no-caps flat")
            waiting = _waiting()
        stop.set_visibility(False)
        talk = _Talk(self._here, self._decks, self._folders, places)

        async def sent() -> None:
            given = _given(text.value)
            text.set_value("")
            send.disable()
            over.disable()
            stop.set_visibility(True)
            waiting.set_visibility(True)
            try:
                await talk.answer(given, lambda: waiting.set_visibility(False))
            finally:
                send.enable()
                over.enable()
                stop.set_visibility(False)
                waiting.set_visibility(False)

        send.on_click(self._here.on(sent))
        stop.on_click(lambda: talk.stopped.set())
        over.on_click(self._here.on(talk.clear))
        ui.context.client.on_disconnect(lambda: talk.stopped.set())


@final
class _Talk:
    """One conversation with each adapter."""

    def __init__(self, here: Screen, decks: Decks, folders: Sequence[Path], places: Sequence[Any]) -> None:
        self._here, self._decks, self._folders, self._places = here, decks, folders, places
        self._turns: list[Turns] = [[] for _ in places]
        self.stopped = threading.Event()

    def clear(self) -> None:
        """Forget what was said."""
        self._turns = [[] for _ in self._places]
        for place in self._places:
            place.clear()

    async def answer(self, text: str, begun: Callable[[], None]) -> None:
        """Show a message and the answers as they come; an error is shown, and the message is not kept then."""
        asked = [[*turns, {"role": "user", "content": text}] for turns in self._turns]
        labels, pieces = [], [""] * len(asked)
        for place, turns in zip(self._places, asked, strict=True):
            if len(turns) == 1:
                place.clear()
            with place:
                ui.label(text).classes("said")
                labels.append(ui.label("…").style("white-space: pre-wrap"))

        def take(row: int, piece: str) -> None:
            pieces[row] += piece

        self.stopped.clear()
        work = asyncio.create_task(asyncio.to_thread(self._decks.stream, self._folders, asked, take, self.stopped))
        while not work.done():
            await asyncio.wait([work], timeout=_EVERY_S)
            if any(pieces):
                begun()
                for label, piece in zip(labels, pieces, strict=True):
                    label.set_text(piece or "…")
        try:
            await work
        except TunedeckError as error:
            for label in labels:
                label.set_text(say("(no answer)"))
            self._here.show_error(error)
            return
        for label, piece in zip(labels, pieces, strict=True):
            label.set_text(piece or say("(no answer)"))
        if self._turns and all(pieces):
            said = zip(asked, pieces, strict=True)
            self._turns = [[*turns, {"role": "assistant", "content": piece}] for turns, piece in said]


def _given(text: str | None) -> str:
    if not (text or "").strip():
        raise DataError(say("there is no text; type one first"))
    return str(text)


def _waiting() -> Any:
    with ui.row().classes("items-center") as waiting:
        ui.spinner()
        ui.label(say("The first answer loads the model …")).classes("faint")
    waiting.set_visibility(False)
    return waiting


def _show(text: str, found: Mapping[str, Any]) -> None:
    """Show a label with its probabilities, scores, entities in the text, or any other answer by its names."""
    if "probabilities" in found:
        if found.get("abstain"):
            ui.label(say("unsure") if found["abstain"] == "unsure" else say("none of these")).classes("number")
        else:
            ui.label(", ".join(found["labels"]) or str(found["label"])).classes("number")
        for name, value in sorted(found["probabilities"].items(), key=lambda one: -one[1])[:_SHOWN]:
            _bar(name, value, f"{value:.1%}")
    elif "entities" in found:
        _marked(text, found["entities"])
    elif "scores" in found:
        levels = found.get("levels") or {}
        for name, value in found["scores"].items():
            ui.label(f"{value:.3f}").classes("number")
            ui.label(name).classes("faint")
            if name in levels:
                ui.label(say("nearest level: {level}", level=levels[name])).classes("faint")
    else:
        for name, value in found.items():
            ui.label(f"{name}: {value}")


def _bar(name: str, value: float, text: str) -> None:
    with ui.row().classes("w-full items-center no-wrap"):
        ui.label(name).style("width: 40%")
        ui.linear_progress(value, show_value=False).style("flex: 1").props(f'aria-label="{text}"')
        ui.label(text).style("width: 4rem; text-align: right")


def _marked(text: str, entities: Sequence[Mapping[str, Any]]) -> None:
    """Show a text with its entities marked and named."""
    with ui.element("p").classes("marked"):
        end = 0
        for one in entities:
            ui.label(text[end : one["start"]])
            with ui.element("mark"):
                ui.label(text[one["start"] : one["end"]])
                ui.label(f"{one['label']} {one['score']:.0%}").classes("kind")
            end = one["end"]
        ui.label(text[end:])
    if not entities:
        ui.label(say("No entity was found in this text.")).classes("faint")
