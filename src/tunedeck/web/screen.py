"""Parts of every screen: language, theme, navigation, errors in one line, and the commands that do the same."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, final

from nicegui import ui

from tunedeck.core.errors import TunedeckError
from tunedeck.core.i18n import LANGUAGES, language, say, set_language

LANGUAGE_COOKIE, DARK_COOKIE = "tunedeck_language", "tunedeck_dark"
_LANGUAGES: dict[str, Any] = {"en": "en-US", "zh": "zh-CN"}
"""How NiceGUI names our languages; its texts, such as those of a lost connection, are in them too."""
_CODE = re.compile(r"\bTD-E\d{3}\b")
STYLE = """
:root { --line: #d7dee6; --soft: #f5f7fa; --ink: #17212b; --faint: #56636f; }
.body--dark { --line: #36424d; --soft: #1b232b; --ink: #e7edf3; --faint: #a3b0bc; }
body { color: var(--ink); font-family: system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
body.body--light { background: #fff; } body.body--dark { background: #12181e; }
.page { text-wrap: pretty; width: 100%; max-width: 68rem; margin: 0 auto; padding: 1rem; gap: 1rem; }
.top { border-bottom: 1px solid var(--line); width: 100%; }
.top nav { max-width: 68rem; margin: 0 auto; padding: .4rem 1rem; display: flex; gap: .2rem 1rem; flex-wrap: wrap;
  align-items: center; }
.top a { color: var(--ink); text-decoration: none; padding: .35rem 0; border-bottom: 2px solid transparent; }
.top a.here { border-color: #1f5fa8; font-weight: 600; }
.brand { font-weight: 700; margin-right: auto; }
.places { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
@media (max-width: 40rem) { .places { order: 1; width: 100%; justify-content: space-between; gap: .2rem .6rem; } }
h1 { font-size: 1.6rem; font-weight: 650; line-height: 1.25; margin: 0; }
h2 { font-size: 1.15rem; font-weight: 650; line-height: 1.3; margin: .6rem 0 0; }
h3 { font-size: 1rem; font-weight: 650; line-height: 1.3; margin: .4rem 0 0; }
.material-icons { width: 1em; overflow: hidden; }
.faint { color: var(--faint); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least, 19rem)), 1fr));
  gap: .8rem; width: 100%; }
.box { border: 1px solid var(--line); border-radius: .6rem; padding: .9rem; background: var(--soft); min-width: 0;
  overflow-wrap: anywhere; }
.box.error { border-color: #b3261e; border-left-width: .3rem; }
.errors { position: fixed; inset: auto 0 1rem; z-index: 9999; align-items: center; padding: 0 1rem; gap: .5rem;
  pointer-events: none; }
.errors .box { pointer-events: auto; width: 100%; max-width: 44rem; box-shadow: 0 4px 20px #0005; }
.box.chosen { border-color: #1f5fa8; box-shadow: 0 0 0 1px #1f5fa8; }
.number { font-size: 1.5rem; font-weight: 650; }
.code { font-family: ui-monospace, monospace; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere;
  width: 100%; }
.box.q-expansion-item { padding: 0; }
.body--dark { --q-primary: #86b7ec !important; --q-negative: #f2a29b !important; }
.body--dark .bg-primary { --q-primary: #1f5fa8; } .body--dark .bg-negative { --q-negative: #b3261e; }
.body--dark :is(.page, .errors) .nicegui-link { color: #86b7ec; }
a:focus-visible, .q-btn:focus-visible, [tabindex]:focus-visible, .q-field--focused .q-field__control {
  box-shadow: 0 0 0 3px #4a90d9; }
.q-field__label, .q-field__messages { color: var(--faint); }
.drop.over { border: 2px dashed #4a90d9; }
.body--light :is(.page, .errors) .nicegui-link { color: #1f5fa8; }
.marked { white-space: pre-wrap; line-height: 2; } .marked .nicegui-label, .marked div { display: inline; }
.marked mark { background: #ffe08a; color: #17212b; border-radius: .25rem; padding: .1rem .25rem; }
.marked .kind { font-size: .75rem; font-weight: 600; margin-left: .3rem; }
.matrix { border-collapse: collapse; } .matrix th { padding: .3rem .6rem; font-weight: 500; text-align: left;
  max-width: 10rem; overflow-wrap: anywhere; vertical-align: bottom; }
.matrix td { padding: 0; background: color-mix(in srgb, #3f7fc1 calc(var(--share, 0) * 55%), var(--soft));
  border: 1px solid var(--line); }
.matrix .q-btn { width: 100%; min-width: 4rem; color: var(--ink) !important; }
.said { align-self: flex-end; background: #1f5fa8; color: #fff; border-radius: .6rem; padding: .3rem .6rem;
  white-space: pre-wrap; }
.wide { width: 100%; overflow-x: auto; }
.wide .q-table__container, .wide .q-table__middle { overflow: visible; }
.q-table__card { background: transparent; }
.q-table th, .q-table td { white-space: normal; overflow-wrap: break-word; }
.q-table td { min-width: 4.5rem; } .q-table td.text-right { white-space: nowrap; min-width: 0; }
"""


@final
class Screen:
    """A screen that one browser tab shows; what it answers to speaks the language that was chosen there."""

    def __init__(self, chosen: str, errors: Any) -> None:
        self.language, self._errors = chosen, errors

    def on(self, action: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
        """Return a handler in the screen's language that shows a user's error instead of raising it."""

        @wraps(action)
        async def handled(*arguments: Any) -> None:
            set_language(self.language)
            try:
                result = action(*arguments)
                if inspect.isawaitable(result):
                    await result
            except TunedeckError as error:
                self.show_error(error)
            except Exception as error:
                self._show(say("Something failed: {reason}. The terminal of the page has the details.", reason=error))
                raise

        return handled

    def show_error(self, error: TunedeckError) -> None:
        """Show an error as the terminal has it, over the screen until it is closed."""
        self._show(_line(error))

    def _show(self, text: str) -> None:
        with self._errors, ui.element("div").classes("box error").props("role=alert") as box:
            told(text)
            ui.button(say("Close"), on_click=box.delete).props("flat dense no-caps").classes("block ml-auto")


@contextmanager
def screen(here: str) -> Iterator[Screen]:
    """Draw the frame of a screen, and what the block adds inside it; `here` is the path of its place in navigation.

    A TunedeckError of the block is shown in place of the rest.
    """
    request = ui.context.client.request
    cookies = {} if request is None else request.cookies
    chosen = cookies.get(LANGUAGE_COOKIE)
    if chosen in LANGUAGES:
        set_language(chosen)
    dark = {"1": True, "0": False}.get(cookies.get(DARK_COOKIE, ""))
    ui.dark_mode(dark)
    ui.add_css(STYLE)
    ui.colors(primary="#1f5fa8", negative="#b3261e", positive="#1d7a46")
    client = ui.context.client
    client.page = copy.copy(client.page)  # the visitor's, not that of everybody who opens this path
    client.page.language = _LANGUAGES[language()]
    _navigation(here, bool(dark))
    errors = ui.column().classes("errors")
    with ui.column().classes("page"):
        try:
            yield Screen(language(), errors)
        except TunedeckError as error:
            box_of_error(error)


def places() -> tuple[tuple[str, str], ...]:
    """Return the places of the navigation: path and name."""
    return (
        ("/", say("Adapters and runs")),
        ("/data", say("Data")),
        ("/train", say("Train")),
        ("/cost", say("Cost")),
        ("/words", say("Words")),
    )


def _navigation(here: str, dark: bool) -> None:
    with ui.element("header").classes("top"), ui.element("nav").props('aria-label="Tunedeck"'):
        ui.link("Tunedeck", "/").classes("brand")
        with ui.element("div").classes("places"):
            for path, name in places():
                link = ui.link(name, path).classes("here" if path == here else "")
                if path == here:
                    link.props("aria-current=page")
        other = "en" if language() == "zh" else "zh"
        with ui.row().classes("gap-1"):
            _cookie_button({"en": "English", "zh": "中文"}[other], LANGUAGE_COOKIE, other)
            _cookie_button(say("Light") if dark else say("Dark"), DARK_COOKIE, "0" if dark else "1")


def _cookie_button(text: str, cookie: str, value: str) -> None:
    kept = f"{cookie}={value}; path=/; max-age=31536000; SameSite=Strict"
    script = f"() => {{ document.cookie = '{kept}'; location.reload() }}"
    ui.button(text).props("flat dense no-caps").on("click", js_handler=script)


def _line(error: TunedeckError) -> str:
    return f"{' '.join(str(error).split())} [{error.code}]"


def box_of_error(error: TunedeckError) -> None:
    """Show an error in the page, as the terminal has it."""
    with ui.element("div").classes("box error w-full").props("role=alert"):
        told(_line(error))


def told(text: str) -> None:
    """Show what a command or an error tells, with a link to the explanation of each code in it."""
    ui.label(text).style("white-space: pre-wrap")
    for code in dict.fromkeys(_CODE.findall(text)):
        ui.link(say("What {code} means", code=code), f"/words?word={code}", new_tab=True)


def heading(text: str, level: int = 1) -> None:
    """Show a heading; its text is never HTML."""
    if level == 1:
        ui.page_title(f"{text} · Tunedeck")
    with ui.element(f"h{level}"):
        ui.label(text)


def facts(values: list[tuple[str, str]]) -> None:
    """Show names with values, one a line."""
    with ui.element("div").classes("grid gap-x-4 gap-y-1").style("grid-template-columns: auto 1fr"):
        for name, value in values:
            ui.label(name).classes("faint")
            ui.label(value)


def table(columns: list[str], rows: list[list[str]], numbers_from: int = 99) -> Any:
    """Show a table of texts; numbers are to the right from column `numbers_from` on."""
    names = [f"c{place}" for place in range(len(columns))]
    shown = [
        {"name": key, "label": text, "field": key, "align": "right" if place >= numbers_from else "left"}
        for place, (key, text) in enumerate(zip(names, columns, strict=True))
    ]
    values = [{"key": place, **dict(zip(names, row, strict=True))} for place, row in enumerate(rows)]
    with ui.element("div").classes("wide").props("tabindex=0"):  # scrolled by keys where it is too wide
        return ui.table(columns=shown, rows=values, row_key="key", pagination=20 if len(rows) > 20 else 0).props(
            "flat bordered dense :rows-per-page-options=[0] :pagination-label='(a, b, c) => `${a}–${b} / ${c}`'"
            + ("" if len(rows) > 20 else " hide-bottom")
        )


def same_by_hand(command: str, python: str) -> Callable[[str, str], None]:
    """Show the command and the Python that do the same as the screen, to copy; returns what changes them."""
    with ui.expansion(say("The same in the terminal and in Python")).classes("box w-full").props("dense"):
        labels = copied(command), copied(python)

    def change(*texts: str) -> None:
        for label, text in zip(labels, texts, strict=True):
            label.set_text(text)

    return change


def copied(text: str) -> Any:
    """Show lines of code with a button that copies them; returns their label."""
    done = say("Copied")

    def copy_it() -> None:
        ui.clipboard.write(label.text)
        ui.notify(done, timeout=1500)

    with ui.row().classes("w-full items-start no-wrap"):
        label = ui.label(text).classes("code").style("flex: 1; min-width: 0")
        button = ui.button(icon="content_copy", on_click=copy_it).props("flat dense")
        button.props["aria-label"] = say("Copy")
    return label
