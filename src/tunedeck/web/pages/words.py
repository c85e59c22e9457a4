"""Words: the terms of the glossary and the codes of errors, each explained; what `tunedeck explain` prints."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nicegui import ui

from tunedeck.core.glossary import error_codes, terms
from tunedeck.core.i18n import language, say
from tunedeck.web.pages.library import address
from tunedeck.web.screen import heading, same_by_hand, screen
from tunedeck.web.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Entry:
    """A term or a code with its text, every word that finds it, and the terms to read next."""

    title: str
    text: str
    words: tuple[str, ...]
    see: tuple[str, ...] = ()


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen of the glossary; `word` is what to look for, all of it where it is empty."""

    def words(word: str = "") -> None:
        with screen("/words") as here:
            heading(say("Words and error codes"))
            search = ui.input(say("Search"), value=word).classes("w-full")
            search.props("outlined dense clearable debounce=200 type=search")
            found = ui.column().classes("w-full").props('aria-live="polite"')

            def show() -> None:
                asked = (search.value or "").strip()
                found.clear()
                with found:
                    _show(asked)
                by_hand(*_by_hand(asked))

            by_hand = same_by_hand(*_by_hand(word))
            search.on_value_change(here.on(show))
            show()

    return words


def _show(asked: str) -> None:
    shown = _found(asked)
    if not shown:
        ui.label(say("{word!r} is not in the glossary", word=asked)).classes("box w-full")
    for one in shown:
        with ui.element("article").classes("box w-full"):
            heading(one.title, 2)
            ui.label(one.text)
            if one.see:
                with ui.row().classes("gap-x-3 gap-y-0"):
                    for word in one.see:
                        ui.link(word, address("/words", word=word))


def _found(asked: str) -> list[Entry]:
    """Return the entries of a word or code; without one, those with the text in their words or explanation."""
    word, every = asked.lower(), list(_entries())
    exact = [one for one in every if word in one.words]
    return exact or [one for one in every if any(word in text.lower() for text in (*one.words, one.text))]


def _entries() -> Iterator[Entry]:
    zh = language() == "zh"
    for term in terms():
        names = (term.zh, term.name) if zh else (term.name, term.zh)
        yield Entry(" · ".join(dict.fromkeys(names)), term.text, term.words, term.see)
    for code in error_codes():
        yield Entry(code.code, code.text, (code.code.lower(),))


def _by_hand(asked: str) -> tuple[str, str]:
    command = "tunedeck explain" + (f" {shlex.quote(asked)}" if asked else "")
    lines = (
        "from tunedeck.core.glossary import error_codes, terms",
        "",
        "for one in (*terms(), *error_codes()):",
        "    print(one)",
    )
    return command, "\n".join(lines)
