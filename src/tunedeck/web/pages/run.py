"""Progress and result of a run, a comparison or a race, read from its folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from tunedeck.comparison.report.confusion import label_cells
from tunedeck.comparison.report.result import Confusion
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.units import duration
from tunedeck.web.events import Line, Watched
from tunedeck.web.pages.library import address
from tunedeck.web.screen import Screen, facts, heading, same_by_hand, screen, table
from tunedeck.web.shelf import item_named, read_values
from tunedeck.web.workspace import Workspace

_EVERY_S, _MISTAKES = 1.0, 100


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen of a workspace's run."""

    def run(name: str = "") -> None:
        with screen("/") as here:
            path = work.folder.path(name)
            if not path.exists() and not work.processes.was_started(name):
                raise ConfigError(say("{name!r} is not in the folder {path}", name=name, path=work.folder.root))
            heading(name)
            _progress(work, here, name)
            _result(work, name)
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


def _progress(work: Workspace, here: Screen, name: str) -> None:
    watched = Watched(work.folder.path(name))
    with ui.row().classes("items-center w-full").props('aria-live="polite"'):
        state = ui.label().classes("number")
        stop = ui.button(say("Stop and keep what there is"), on_click=here.on(lambda: work.processes.stop(name)))
        stop.props("no-caps flat color=negative")
    charts = ui.element("div").classes("cards")
    with charts:
        losses = ui.echart(_chart(say("training loss"))).classes("h-64 w-full")
        qualities = ui.echart(_chart(say("quality on held-out texts"))).classes("h-64 w-full")
    rows = ui.column().classes("w-full gap-0")
    with ui.expansion(say("Log")).classes("box w-full").props("dense"):
        log = ui.label().classes("code")
    seen = {"running": work.processes.is_running(name)}

    def update() -> None:
        changed, running = watched.read(), work.processes.is_running(name)
        state.set_text(say("running") if running else say("ended"))
        stop.set_visibility(running)
        log.set_text(work.processes.log(name) or say("It was not started by the page; its output is in the terminal."))
        charts.set_visibility(bool(watched.lines))
        if changed:
            _draw(losses, {one: line.losses for one, line in watched.lines.items()})
            _draw(qualities, {one: line.qualities for one, line in watched.lines.items()})
            rows.clear()
            with rows:
                for one, line in watched.lines.items():
                    ui.label(_line_text(one, line)).classes("faint")
        if seen["running"] and not running:
            ui.navigate.reload()  # shows the result
        seen["running"] = running

    update()
    ui.timer(_EVERY_S, here.on(update))


def _line_text(name: str, line: Line) -> str:
    last = f"{line.metric} {line.qualities[-1][1]:.3f}" if line.qualities else ""
    done = f"{line.step} / {line.steps}" if line.steps else ""
    return " · ".join(filter(None, (name, done, duration(line.at_s), last, line.ended)))


def _chart(title: str) -> dict[str, Any]:
    """Return the options of a chart; its tooltip is no HTML, as names come from data."""
    return {
        "animation": False,
        "title": {"text": title, "textStyle": {"fontSize": 13, "fontWeight": "normal", "color": "#7a8794"}},
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "legend": {"type": "scroll", "bottom": 0, "show": False, "textStyle": {"color": "#7a8794"}},
        "grid": {"left": 44, "right": 12, "top": 36, "bottom": 46},
        "xAxis": {"type": "value", "min": 0},
        "yAxis": {"type": "value", "scale": True},
        "series": [],
    }


def _draw(chart: Any, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    chart.options["series"] = [
        {
            "name": name or say("run"),
            "type": "line",
            "data": list(points),
            "symbolSize": 5,
            "showSymbol": len(points) < 30,
        }
        for name, points in lines.items()
        if points
    ]
    chart.options["legend"]["show"] = len(chart.options["series"]) > 1
    chart.update()


def _result(work: Workspace, name: str) -> None:
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
        metrics = read_values(path / "metrics.json").items()
        facts([(key, f"{value:.4f}") for key, value in metrics if isinstance(value, float)])
    if found.adapter:
        adapter = found.adapter
        ui.button(say("Try it"), on_click=lambda: ui.navigate.to(address("/use", adapter=adapter))).props(
            "no-caps unelevated"
        )


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
