"""Progress and result of a run, a comparison or a race, read from its folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.comparison.report.confusion import label_cells
from tunedeck.comparison.report.values import Confusion
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.units import duration, format_bytes
from tunedeck.tasks.classify.config import ClassifyConfig
from tunedeck.web.controls import with_question
from tunedeck.web.pages.believe import show_closer
from tunedeck.web.pages.library import address
from tunedeck.web.pages.watch import show_progress
from tunedeck.web.screen import Screen, facts, heading, same_by_hand, screen, table
from tunedeck.web.shelf import item_named, read_values
from tunedeck.web.workspace import Workspace

_MISTAKES = 100


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen of a workspace's run."""

    def run(name: str = "") -> None:
        with screen("/") as here:
            path = work.folder.path(name)
            if not path.exists() and not work.processes.was_started(name):
                raise ConfigError(say("{name!r} is not in the folder {path}", name=name, path=work.folder.root))
            heading(name)
            show_progress(work, here, name)
            _result(work, here, name)
            _by_hand(work, name)

    return run


def _by_hand(work: Workspace, name: str) -> None:
    path, found = work.folder.path(name), item_named(work.folder, name)
    results = {"comparison": "comparison.json", "race": "race.json"}
    repeat = read_values(path / results[found.kind]).get("repeat") if found and found.kind in results else None
    command = str(repeat["command"]) if repeat else f"tunedeck train {shlex.quote(name)}/config.yaml"
    adapter = found.adapter if found and found.adapter else f"{name}/adapter"
    python = f"import tunedeck as td\n\ndeck = td.Deck.open({adapter!r})\n"
    same_by_hand(work.processes.command(name) or command, python + 'deck.predict(["..."], adapter=deck.adapters[0])')


def _result(work: Workspace, here: Screen, name: str) -> None:
    found = item_named(work.folder, name)
    if found is None or not found.finished:
        return
    heading(say("Result"), 2)
    path = work.folder.path(name)
    if found.kind == "comparison":
        _comparison(read_values(path / "comparison.json"))
    elif found.kind == "race":
        ui.label(str(read_values(path / "race.json").get("text", "")))
    else:
        _metrics(path)
    if found.adapter:
        adapter = found.adapter
        with ui.row():
            screens = [(say("Try it"), "/use")]
            if found.task == ClassifyConfig.kind:
                screens.append((say("Improve"), "/improve"))
            for text, screen_ in screens:
                there = address(screen_, adapter=adapter)
                ui.button(text, on_click=lambda there=there: ui.navigate.to(there)).props("no-caps unelevated")
        show_closer(work, here, adapter)


def _comparison(found: Mapping[str, Any]) -> None:
    """Show the recommendation, every entry, and of the best one its labels, confusions and mistakes."""
    chosen, metric = found.get("recommendation") or {}, str(found.get("metric") or "")
    ui.label(str(chosen.get("text", ""))).classes("box w-full")
    if chosen.get("warning"):
        ui.label(str(chosen["warning"]))
    rows = [row for row in found.get("rows", ()) if isinstance(row, dict)]
    table(
        [say("method"), metric, say("95 % interval"), say("training time")],
        [[str(row["name"]), f"{row[metric]:.3f}", _interval(row), duration(row["train_s"])] for row in rows],
        numbers_from=1,
    )
    if counted := found.get("confusion"):
        confusion = Confusion(counted["entry"], tuple(counted["labels"]), tuple(map(tuple, counted["counts"])))
        heading(say("Labels of {name}", name=confusion.entry), 2)
        columns = [say("label"), "precision", "recall", "F1", say("texts")]
        table(columns, label_cells(confusion), numbers_from=1)
        heading(say("True label in the row, predicted in the column"), 2)
        cells = [[label, *map(str, counts)] for label, counts in zip(confusion.labels, confusion.counts, strict=True)]
        table(["", *confusion.labels], cells, numbers_from=1)
    if mistakes := found.get("mistakes"):
        heading(say("Mistakes, the most confident first"), 2)
        columns = [say("text"), say("label"), say("predicted"), say("probability")]
        shown = [[one["text"], one["wanted"], one["answered"], f"{one['score']:.2f}"] for one in mistakes[:_MISTAKES]]
        table(columns, shown, numbers_from=3)


def _interval(row: Mapping[str, Any]) -> str:
    interval = row.get("interval")
    return f"{interval['low']:.3f} – {interval['high']:.3f}" if interval else ""


def _metrics(folder: Path) -> None:
    """Show a run's metrics before and after training, and what it has cost."""
    found = read_values(folder / "metrics.json")
    start = found.get("start")
    before = start if isinstance(start, dict) else {}
    names = [key for key, value in found.items() if isinstance(value, float) and key != "temperature"]
    if before:
        with_question(
            say("Before training, the adapter changes nothing: this is the base model, with a head on its vectors."),
            "head",
        )
    rows = [[key, _number(before.get(key)), f"{found[key]:.4f}"] for key in names]
    if rows:
        table([say("metric"), say("before training"), say("adapter")], rows, numbers_from=1)
    measured = read_values(folder / "measurement.json")
    if isinstance(measured.get("train_s"), int | float):
        costs = [(say("training time"), duration(measured["train_s"]))]
        if isinstance(measured.get("peak_memory_bytes"), int):
            costs.append((say("memory"), format_bytes(measured["peak_memory_bytes"])))
        if isinstance(measured.get("examples_per_s"), int | float):
            costs.append((say("examples a second"), f"{measured['examples_per_s']:.0f}"))
        facts(costs)


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""
