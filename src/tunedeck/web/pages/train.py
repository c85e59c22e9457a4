"""Train: how long it may take, what the plan says for this machine, and every setting for those who want them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.core.errors import TunedeckError
from tunedeck.core.glossary import terms
from tunedeck.core.i18n import say
from tunedeck.core.settings import Setting, settings_of
from tunedeck.core.units import duration_range, format_byte_range
from tunedeck.methods.registry import DEFAULT_METHOD, METHODS
from tunedeck.planner.machine import THIS_MACHINE
from tunedeck.planner.plan import PlanRow
from tunedeck.planner.planning import plan
from tunedeck.training.config import TrainingSettings
from tunedeck.training.left_out import with_left_out
from tunedeck.web.pages.data import reference_of
from tunedeck.web.pages.library import address
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, heading, same_by_hand, screen
from tunedeck.web.workspace import Workspace

_PLANNED = "lora"


@dataclass(frozen=True, slots=True)
class Promise:
    """One way to train: a command with its arguments, and the group of folders that it writes into."""

    key: str
    title: str
    text: str
    command: str
    flags: tuple[str, ...]
    group: str


def promises() -> tuple[Promise, ...]:
    """Return the ways to train, the shortest first."""
    return (
        Promise(
            "quick",
            say("3 minutes"),
            say("One LoRA adapter, trained for three minutes at most."),
            "train",
            ("--max-minutes", "3"),
            "runs",
        ),
        Promise(
            "race",
            say("15 minutes"),
            say("Many settings race on your data; the worse ones stop early."),
            "race",
            ("--minutes", "15"),
            "race",
        ),
        Promise(
            "best",
            say("As good as it gets"),
            say("The race runs until its ranking no longer changes, however long that takes."),
            "race",
            (),
            "race",
        ),
    )


def page(work: Workspace) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return the screen that starts training on a file."""

    async def train(file: str = "", text: str = "", label: str = "", way: str = "quick") -> None:
        with screen("/train") as here:
            heading(say("Train"))
            if not file:
                ui.label(say("Choose the data to train on first."))
                ui.button(say("Bring data"), on_click=lambda: ui.navigate.to("/data")).props("no-caps unelevated")
                return
            reference_of(work, file)
            ui.label(file).classes("code")
            columns = {key: value for key, value in (("text", text), ("label", label)) if value}
            _ways(way, file, columns)
            _plan(here, reference_of(work, file))
            _start(work, here, file, columns, next((one for one in promises() if one.key == way), promises()[0]))

    return train


def _ways(way: str, file: str, columns: dict[str, str]) -> None:
    with ui.element("div").classes("cards"):
        for one in promises():
            chosen = " chosen" if one.key == way else ""
            there = address("/train", file=file, way=one.key, **columns)
            with ui.link(target=there).classes("box block no-underline" + chosen).style("color: inherit"):
                ui.label(one.title).classes("number")
                ui.label(one.text).classes("faint")


def _plan(here: Screen, reference: str) -> None:
    """Show what a whole run of one adapter takes on this machine, once that is computed."""
    with ui.column().classes("box w-full").props('aria-live="polite"') as place:
        ui.label(say("Estimating time and memory on this machine …")).classes("faint")

    async def estimate() -> None:
        try:
            row, model = await asyncio.to_thread(_planned, reference)
        except TunedeckError as error:
            place.clear()
            with place:
                ui.label(say("There is no estimate: {reason}", reason=error)).classes("faint")
            return
        place.clear()
        with place:
            ui.label(say("A whole run of one LoRA adapter on this machine, base {model}:", model=model))
            hours, peak = row.hours.total_h, row.peak_device_bytes
            time = duration_range(3600 * hours.low, 3600 * hours.expected, 3600 * hours.high)
            memory = format_byte_range(peak.low, peak.expected, peak.high)
            ui.label(say("{time}, {memory} of memory", time=time, memory=memory)).classes("number")
            if not row.fits:
                ui.label(say("This does not fit into the memory of this machine.")).props("role=alert")

    ui.timer(0.05, here.on(estimate), once=True)


def _planned(reference: str) -> tuple[PlanRow, str]:
    values = with_left_out({"data": {"train": reference}}, lambda text: None)
    found = plan(values["model"], reference, methods=_PLANNED, gpus=[THIS_MACHINE])
    return found.rows[0], values["model"]


def _start(work: Workspace, here: Screen, file: str, columns: dict[str, str], way: Promise) -> None:
    taken = work.folder.free_name(way.group, Path(file.removeprefix("bundled:")).stem)
    settings: dict[str, str] = {}

    def arguments() -> list[str]:
        name = work.folder.free_name(way.group, Path(file.removeprefix("bundled:")).stem)
        flags = [part for key, value in columns.items() for part in (f"--{key}", value)]
        chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return [way.command, file, *flags, *way.flags, *chosen, "--out", name]

    def start() -> None:
        command = arguments()
        work.processes.start(command[-1], command)
        ui.navigate.to(address("/run", name=command[-1]))

    if way.command == "train":
        with ui.expansion(say("Every setting")).classes("box w-full").props("dense"):
            _drawer(settings)
    ui.button(say("Start"), on_click=here.on(start)).props("no-caps unelevated size=lg")
    same_by_hand(command_text(arguments()), _python(way, file, taken, columns))


def _python(way: Promise, file: str, out: str, columns: dict[str, str]) -> str:
    if way.command == "race":
        limit = ", minutes=15" if "--minutes" in way.flags else ""
        data = {"train": file, **columns}
        return f"import tunedeck as td\n\nrace = td.race(data={data!r}{limit}, out={out!r})"
    changes = {**{f"data.{key}": value for key, value in columns.items()}, "training.max_minutes": 3}
    return f"import tunedeck as td\n\nruns = td.train_run({file!r}, {changes!r}, out={out!r})"


def _drawer(settings: dict[str, str]) -> None:
    """Show a field for every setting of the default method and of the training loop; an empty one keeps the default."""
    explained = {word: term.text for term in terms() for word in term.words}
    ui.label(say("An empty field keeps the default.")).classes("faint")
    with ui.element("div").classes("cards"):
        for key, setting in _settings():
            _field(settings, key, setting, explained.get(setting.name.replace("_", " ")) or explained.get(setting.name))


def _settings() -> Iterator[tuple[str, Setting]]:
    for group, cls in (("method", METHODS[DEFAULT_METHOD]), ("training", TrainingSettings)):
        for setting in settings_of(cls):
            if setting.help is not None and setting.name != "max_minutes":
                yield f"{group}.{setting.name}", setting


def _field(settings: dict[str, str], key: str, setting: Setting, explained: str | None) -> None:
    default = "" if setting.default is None else str(setting.default)

    def changed(event: Any) -> None:
        if value := str(event.value or "").strip():
            settings[key] = value
        else:
            settings.pop(key, None)

    with ui.column().classes("gap-1"):
        if setting.choices and not setting.is_list:
            ui.select(list(setting.choices), label=key, clearable=True, on_change=changed).props(
                "outlined dense"
            ).classes("w-full")
        else:
            ui.input(key, placeholder=default, on_change=changed).props("outlined dense stack-label").classes("w-full")
        ui.label(setting.help.text if setting.help else "").classes("faint text-sm")
        if explained:
            with ui.expansion("?").props("dense"):
                ui.label(explained)
