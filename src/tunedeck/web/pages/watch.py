"""Watch a run, a comparison or a race while its folder is written: curves, speed, time and money; pause and resume.

The file is long because runs, comparisons and races share one screen and its parts.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

from nicegui import ui

from tunedeck.core.errors import StorageError
from tunedeck.core.i18n import say
from tunedeck.core.units import duration
from tunedeck.training.lock import LOCK, is_locked
from tunedeck.web.events import Line, Point, Watched
from tunedeck.web.screen import Screen, table, told
from tunedeck.web.shelf import item_named, read_values
from tunedeck.web.workspace import Workspace

State = Literal["running", "elsewhere", "finished", "paused", "broken"]
_EVERY_S, _STOPS_WITHIN_S, _QUIET_S = 1.0, 300, 120
_POINTS = 2000
"""Points that a chart is sent, of all its lines."""
_FULL_BYTES = 1 << 20
_GREY, _FAINT = "#9aa5b1", "#7a8794"
_AXIS = {"splitLine": {"lineStyle": {"color": "#7a879455"}}, "axisLabel": {"color": _FAINT, "hideOverlap": True}}
_LIMITS = ("--minutes", "--budget")
_AT_ONCE = ("--minutes", "0.01")
"""The limit of a race that is to end with what it has found."""


def show_progress(work: Workspace, here: Screen, name: str) -> None:
    """Show what the folder of a name tells, and follow it."""
    _Watch(work, here, name, Watched(work.folder.path(name))).show()


@final
@dataclass
class _Watch:
    work: Workspace
    here: Screen
    name: str
    watched: Watched
    _was: State | None = None
    _told: str | None = None
    _drawn: set[str] = field(default_factory=set)

    def show(self) -> None:
        with ui.row().classes("items-baseline w-full").props('aria-live="polite"'):
            self._state = ui.label(say("Reading its events …")).classes("number")
            self._speed = ui.label().classes("faint")
        with ui.row().classes("items-center w-full"):
            self._buttons()
        self._charts = ui.element("div").classes("cards").style("--least: 24rem")
        with self._charts:
            self._losses = ui.echart(_chart(say("training loss"))).classes("h-64 w-full")
            self._qualities = ui.echart(_chart(say("quality on held-out texts"))).classes("h-64 w-full")
        self._left_out = ui.label().classes("faint")
        self._rows = table([say("name"), say("done"), say("time"), say("cost"), say("quality"), say("state")], [])
        with ui.expansion(say("Log")).classes("box w-full").props("dense") as self._opened:
            self._log = ui.column().classes("code")
        for chart, text in ((self._losses, say("training loss")), (self._qualities, say("quality"))):
            chart.props["role"], chart.props["aria-label"] = "img", text
        ui.timer(_EVERY_S, self.here.on(self._update))

    def _buttons(self) -> None:
        def button(text: str, action: Any, color: str = "primary") -> Any:
            return ui.button(text, on_click=self.here.on(action)).props(f"no-caps outline color={color}")

        self._pause = button(say("Pause"), lambda: self.work.processes.stop(self.name))
        self._keep = button(say("Stop and keep the best"), self._end_race, "negative")
        self._resume = button(say("Resume"), self._start_again)
        self._price = ui.number(say("Price of an hour, CNY"), min=0, on_change=self.here.on(lambda: self._draw()))
        self._price.props("outlined dense debounce=400")

    async def _update(self) -> None:
        changed = await asyncio.to_thread(self.watched.read)
        state = self._state_now()
        was, self._was = self._was, state
        if was in ("running", "elsewhere") and state not in ("running", "elsewhere"):
            ui.navigate.reload()  # shows the result
        if changed or state != was:
            self._draw()
        if state != was:
            self._show_state(state)
        self._show_log(self.work.processes.log(self.name))

    def _show_log(self, log: str) -> None:
        if log != self._told:
            self._told = log
            self._log.clear()
            with self._log:
                told(log or say("It was not started by the page; its output is in the terminal."))

    def _show_state(self, state: State) -> None:
        texts = {
            "running": say("running"),
            "elsewhere": say("running in a terminal"),
            "finished": say("finished"),
            "paused": say("paused"),
            "broken": say("ended before it was finished"),
        }
        self._state.set_text(texts[state])
        race = self.watched.is_race and bool(self.work.processes.arguments(self.name))
        self._pause.set_visibility(state == "running")
        self._keep.set_visibility(race and state in ("running", "paused"))
        self._resume.set_visibility(state in ("paused", "broken") and bool(self._resuming()))
        trained_on = read_values(self.watched.folder / "config.yaml").get("start_from") and state == "finished"
        if (state == "broken" or trained_on) and self.work.processes.was_started(self.name):
            self._opened.open()  # its last lines are the reason, or what got better and worse
        if state == "broken":
            self._tell_of_a_full_disk()

    def _tell_of_a_full_disk(self) -> None:
        """Show that the disk is full where it was too full to take the line that says so."""
        root = self.work.folder.root
        if "[TD-E" not in self.work.processes.log(self.name) and shutil.disk_usage(root).free < _FULL_BYTES:
            self.here.show_error(
                StorageError(say("the disk of {path} is full; free some space, then resume the run", path=root))
            )

    def _state_now(self) -> State:
        if self.work.processes.is_running(self.name):
            return "running"
        if is_locked(self.watched.folder):
            return "elsewhere"
        found = item_named(self.work.folder, self.name)
        stopped = read_values(self.watched.folder / "metrics.json").get("stopped")
        if stopped in ("interrupted", "terminated"):
            return "paused"
        if found is not None and found.finished:
            return "finished"
        if self._was_written_lately():
            return "elsewhere"
        return "paused" if found is not None and found.kind in ("race", "comparison") else "broken"

    def _was_written_lately(self) -> bool:
        """Tell whether a terminal writes a folder without a lock, as that of a comparison is."""
        ours = self.work.processes.was_started(self.name) or (self.watched.folder / LOCK).exists()
        return not ours and self.watched.age_s() < _QUIET_S

    def _resuming(self) -> list[str]:
        """Return the command that resumes; none where only the terminal knows it."""
        if (self.watched.folder / "config.yaml").exists() and not self.watched.is_race:
            return ["train", "--resume", self.name]
        return self.work.processes.arguments(self.name)

    def _start_again(self) -> None:
        self.work.processes.start(self.name, self._resuming())
        ui.navigate.reload()

    async def _end_race(self) -> None:
        """Stop the race, and start it with no time left: it then measures and saves the leader it has."""
        arguments = self.work.processes.arguments(self.name)
        kept = [one for before, one in zip(["", *arguments], arguments, strict=False) if before not in _LIMITS]
        self._state.set_text(say("stopping …"))
        self.work.processes.stop(self.name)
        until = time.monotonic() + _STOPS_WITHIN_S
        while self.work.processes.is_running(self.name) and time.monotonic() < until:
            await asyncio.sleep(0.2)
        self.work.processes.start(self.name, [*(one for one in kept if one not in _LIMITS), *_AT_ONCE])
        ui.navigate.reload()

    def _draw(self) -> None:
        lines, race = self.watched.lines, self.watched.is_race
        self._charts.set_visibility(bool(lines))
        self._rows.set_visibility(bool(lines))
        self._losses.set_visibility(not race)
        self._charts.style("grid-template-columns: 1fr" if race else "")
        self._speed.set_text(self._speed_text())
        price = self._per_hour()
        if race:
            unit = say("cost of the candidate, {currency}", currency=self._currency()) if price else say("minutes")
            scale = price / 3600 if price else 1 / 60
            self._qualities.options["xAxis"] |= {"name": unit, "nameLocation": "middle", "nameGap": 24}
            shown = {
                name: [(round(at * scale, 5), value) for at, value in line.qualities] for name, line in lines.items()
            }
        else:
            _draw(self._losses, {one: line.losses for one, line in lines.items()}, {})
            shown = {one: line.qualities for one, line in lines.items()}
        _draw(self._qualities, shown, {one: line.reason for one, line in lines.items()})
        ordered = list(lines.items())
        if race:
            ordered = [(name, line) for name, line in ordered if line.step or line.ended or not line.reason]
            ordered.sort(key=lambda one: (bool(one[1].reason), -one[1].step))
        left_out = len(lines) - len(ordered)
        self._left_out.set_text(
            say("{count} candidates were not started, because the time did not suffice for them.", count=left_out)
            if left_out
            else ""
        )
        keys = ("c0", "c1", "c2", "c3", "c4", "c5")
        cells = [(name or self.name, *_cells(line, price, race)) for name, line in ordered]
        self._rows.rows = [{"key": row[0], **dict(zip(keys, row, strict=True))} for row in cells]
        self._rows.update()

    def _per_hour(self) -> float:
        given = (self.watched.standing.get("price") or {}).get("per_hour")
        return float(self._price.value or given or 0)

    def _currency(self) -> str:
        price = self.watched.standing.get("price")
        return str(price["currency"]) if price and not self._price.value else "CNY"

    def _speed_text(self) -> str:
        """Return examples a second, time and money so far and to go, as far as they are known."""
        watched = self.watched
        going = [line for line in watched.lines.values() if line.recent and not line.ended]
        line = watched.training if watched.is_race else going[-1] if going else Line()
        running, found = self.work.processes.is_running(self.name), []
        each = _examples_per_step(watched, next((one for one, value in watched.lines.items() if value is line), ""))
        if running and line.steps_per_s and each:
            found.append(say("{count:.3g} examples/s", count=line.steps_per_s * each))
        so_far = watched.at_s or sum(one.at_s for one in watched.lines.values())
        to_go = self._left_s(line) if running else 0.0
        if so_far:
            amount = self._with_money(so_far)
            found.append(amount if self._was == "finished" else say("{amount} so far", amount=amount))
        if to_go:
            found.append(say("about {amount} to go", amount=self._with_money(to_go)))
        return " · ".join(found)

    def _with_money(self, seconds: float) -> str:
        price = self._per_hour()
        return duration(seconds) + (f" ({price * seconds / 3600:.3g} {self._currency()})" if price else "")

    def _left_s(self, line: Line) -> float:
        """Return seconds until the race's limit, or until the end of the run at its present speed; 0 if unknown."""
        if self.watched.is_race:
            limit = self.watched.standing.get("limit_s")
            return max(0.0, float(limit) - self.watched.at_s) if limit else 0.0
        left = (line.steps - line.step) / line.steps_per_s if line.steps_per_s else 0.0
        minutes = (read_values(self.watched.folder / "config.yaml").get("training") or {}).get("max_minutes")
        return min(left, max(0.0, 60 * float(minutes) - line.at_s)) if minutes else left


def _examples_per_step(watched: Watched, name: str) -> int:
    """Return the examples of an update of the weights; 0 where the settings are not in the folder."""
    values = read_values(watched.folder / "config.yaml") or read_values(watched.folder / "runs" / f"{name}.yaml")
    if watched.is_race:
        try:
            with (watched.folder / "race.jsonl").open(encoding="utf-8") as log:
                values = json.loads(log.readline())
        except (OSError, ValueError):
            return 0
    training = values.get("training") or {}
    return int(training.get("batch_size") or 0) * int(training.get("gradient_accumulation_steps") or 1)


def _cells(line: Line, price: float, race: bool) -> tuple[str, ...]:
    done = f"{line.step}\u00a0%" if race else f"{line.step} / {line.steps}" if line.steps else ""
    cost = f"{price * line.at_s / 3600:.3g}" if price else ""
    quality = f"{line.metric} {line.qualities[-1][1]:.3f}".strip() if line.qualities else ""
    state = line.reason or _end(line.ended)
    return done, duration(line.at_s).replace(" ", "\u00a0"), cost, quality, state


def _end(ended: str) -> str:
    """Return how a run or a candidate has ended; the reason of a failure is shown as it is."""
    return {
        "winner": say("winner"),
        "finished": say("finished"),
        "time": say("the time was up"),
        "early": say("stopped early: no longer better"),
        "stopped": say("stopped"),
        "given up": say("stopped"),
        "interrupted": say("paused"),
        "terminated": say("paused"),
        "paused": say("paused"),
        "failed": say("failed"),
    }.get(ended, ended)


def _chart(title: str) -> dict[str, Any]:
    """Return the options of a chart; its tooltip is no HTML, as names come from data."""
    return {
        "animation": False,
        "title": {"text": title, "textStyle": {"fontSize": 13, "fontWeight": "normal", "color": _FAINT}},
        "tooltip": {"trigger": "item", "renderMode": "richText"},
        "legend": {"type": "scroll", "bottom": 0, "show": False, "textStyle": {"color": _FAINT}},
        "grid": {"left": 44, "right": 12, "top": 44, "bottom": 60},
        "xAxis": {"type": "value", "min": 0, **_AXIS},
        "yAxis": {"type": "value", "scale": True, **_AXIS},
        "series": [],
    }


def _draw(chart: Any, lines: Mapping[str, Sequence[Point]], stopped: Mapping[str, str]) -> None:
    """Draw the lines, those of stopped candidates in grey."""
    each = max(50, _POINTS // max(1, len(lines)))
    chart.options["series"] = [
        {
            "name": name or say("run"),
            "type": "line",
            "data": thinned(points, each),
            "symbolSize": 5,
            "showSymbol": len(points) < 30,
            **({"itemStyle": {"color": _GREY}, "lineStyle": {"color": _GREY, "width": 1}} if stopped.get(name) else {}),
        }
        for name, points in lines.items()
        if points
    ]
    several = len(chart.options["series"]) > 1
    chart.options["legend"]["show"] = several
    chart.options["grid"]["bottom"] = 60 if several else 28
    chart.update()


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most about that many of the points, the last among them."""
    every = -(-len(points) // most)
    return [*points[: len(points) - 1 : every], points[-1]] if every > 1 else list(points)
