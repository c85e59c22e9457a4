"""A run or a race on the page while it is written: what is shown, paused, resumed and ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import ui
from support.simulated_page import simulated

from tunedeck.training.lock import locked
from tunedeck.web.pages.watch import thinned
from tunedeck.web.processes import RECORDS

ARGUMENTS = ["race", "a.csv", "--minutes", "15", "--price-per-hour", "2", "--out", "race/a"]


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not happen")


def race(folder: Path) -> None:
    """Write a race of two candidates, one of which has stopped."""
    folder.mkdir(parents=True)
    known = [
        {"name": "lora", "key": "a", "text": ""},
        {"name": "full", "key": "b", "text": "full stops at 1/27: significantly worse than lora"},
    ]
    price = {"per_hour": 3600.0, "currency": "CNY"}
    (folder / "standing.json").write_text(json.dumps({"candidates": known, "price": price, "limit_s": 900}))
    answers = [
        {"name": key, "share": share, "scores": [score], "seconds": 2, "at_s": at_s}
        for key, share, score, at_s in (("a", 1 / 27, 0.5, 2), ("b", 1 / 27, 0.4, 4), ("a", 1 / 9, 0.75, 6))
    ]
    lines = [{"training": {"batch_size": 8}}, *answers]
    (folder / "race.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def started(folder: Path, name: str, arguments: list[str]) -> None:
    """Write what the page keeps of a process that it has started and that has ended."""
    (folder / RECORDS).mkdir(exist_ok=True)
    record = folder / RECORDS / f"{name.replace('/', '%2F')}.json"
    record.write_text(json.dumps({"name": name, "pid": 0, "created": 0, "arguments": arguments}))


def test_a_race_is_drawn_over_its_cost_with_stopped_candidates_in_grey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race(tmp_path / "race/a")
    started(tmp_path, "race/a", ARGUMENTS)
    asked: list[list[str]] = []

    async def visit(user: Any) -> None:
        processes = sys.modules["tunedeck.web.processes"].Processes
        monkeypatch.setattr(processes, "start", lambda self, name, arguments: asked.append(list(arguments)))
        await user.open("/run?name=race/a")
        await user.should_see("paused", retries=50)
        await user.should_see("6.0 s (6 CNY) so far")
        charts = sorted(user.find(ui.echart).elements, key=lambda one: one.id)
        lora, full = charts[-1].options["series"]
        assert lora["data"] == [(2, 0.5), (4, 0.75)]
        assert "lineStyle" not in lora
        assert full["lineStyle"]["color"] == "#9aa5b1"
        (rows,) = (shown.rows for shown in user.find(ui.table).elements)
        assert [list(row.values())[1:] for row in rows] == [
            ["lora", "11\u00a0%", "4.0\u00a0s", "4", "0.750", ""],
            ["full", "4\u00a0%", "2.0\u00a0s", "2", "0.400", "full stops at 1/27: significantly worse than lora"],
        ]
        user.find("Resume").click()
        await until(lambda: len(asked) == 1)
        user.find("Stop and keep the best").click()
        await until(lambda: len(asked) == 2)

    simulated(tmp_path, visit)
    assert asked == [ARGUMENTS, [*ARGUMENTS[:2], *ARGUMENTS[4:], "--minutes", "0.01"]]


def test_an_interrupted_run_is_resumed_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "runs/mail").mkdir(parents=True)
    (folder / "config.yaml").write_text("training: {batch_size: 32}\n")
    (folder / "events.jsonl").write_text('{"event": "start", "at_s": 1, "steps": 9, "step": 0}\n')
    (folder / "metrics.json").write_text('{"stopped": "interrupted"}')
    asked: list[list[str]] = []

    async def visit(user: Any) -> None:
        processes = sys.modules["tunedeck.web.processes"].Processes
        monkeypatch.setattr(processes, "start", lambda self, name, arguments: asked.append(list(arguments)))
        await user.open("/run?name=runs/mail")
        await user.should_see("paused", retries=50)
        user.find("Resume").click()
        await until(lambda: bool(asked))

    simulated(tmp_path, visit)
    assert asked == [["train", "--resume", "runs/mail"]]


def test_a_quiet_run_of_a_terminal_is_told_by_its_lock(tmp_path: Path) -> None:
    race(folder := tmp_path / "race/a")
    os.utime(folder / "race.jsonl", (1e9, 1e9))

    async def visit(user: Any) -> None:
        with locked(folder):
            await user.open("/run?name=race/a")
            await user.should_see("running in a terminal", retries=50)
        await user.should_see("paused", retries=50)

    simulated(tmp_path, visit)


def test_a_run_that_its_time_limit_has_ended_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "runs/mail"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/adapter_config.json").write_text("{}")
    events = [{"event": "start", "at_s": 1, "steps": 9, "step": 0}, {"event": "end", "at_s": 9, "stopped": "time"}]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    (folder / "metrics.json").write_text('{"stopped": "time"}')

    async def visit(user: Any) -> None:
        await user.open("/run?name=runs/mail")
        await user.should_see("finished", retries=50)
        (rows,) = (shown.rows for shown in user.find(ui.table).elements)
        assert rows[0]["c5"] == "the time was up"

    simulated(tmp_path, visit)


def test_a_killed_process_shows_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "runs/mail").mkdir(parents=True)
    started(tmp_path, "runs/mail", ["train", "a.csv", "--out", "runs/mail"])
    (tmp_path / RECORDS / "runs%2Fmail.log").write_text("step 3\nKilled <b>now</b>\n")

    async def visit(user: Any) -> None:
        await user.open("/run?name=runs/mail")
        await user.should_see("ended before it was finished", retries=50)
        await user.should_see("Killed <b>now</b>")
        (log,) = (one for one in user.find(ui.expansion).elements if one.text == "Log")
        assert log.value

    simulated(tmp_path, visit)


def test_a_disk_too_full_for_the_reason_is_told_by_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs/mail").mkdir(parents=True)
    started(tmp_path, "runs/mail", ["train", "a.csv", "--out", "runs/mail"])

    async def visit(user: Any) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=0))
        await user.open("/run?name=runs/mail")
        await user.should_see("is full; free some space, then resume the run [TD-E", retries=50)

    simulated(tmp_path, visit)


@dataclass
class Usage:
    free: int


def test_the_charts_of_many_long_runs_get_few_points_and_only_when_there_are_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / f"compare/day/runs/lora-{number}" for number in range(20)]
    for run in runs:
        (run / "seed-0").mkdir(parents=True)
        (run / "seed-0.yaml").touch()
        lines = [{"event": "step", "at_s": step, "step": step, "loss": 0.5} for step in range(1, 600)]
        (run / "seed-0/events.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    drawn: list[int] = []

    async def visit(user: Any) -> None:
        watch, watched = (sys.modules[f"tunedeck.web.{one}"] for one in ("pages.watch", "events"))
        draw, read = watch._draw, watched.Watched.read
        reads: list[bool] = []

        def counted_draw(chart: Any, lines: Any, stopped: Any) -> None:
            draw(chart, lines, stopped)
            drawn.append(sum(len(one["data"]) for one in chart.options["series"]))

        def counted_read(self: Any) -> bool:
            reads.append(read(self))
            return reads[-1]

        monkeypatch.setattr(watch, "_draw", counted_draw)
        monkeypatch.setattr(watch, "_EVERY_S", 0.01)
        monkeypatch.setattr(watched.Watched, "read", counted_read)
        await user.open("/run?name=compare/day")
        await until(lambda: len(reads) > 3)
        assert reads[:3] == [True, False, False]
        assert len(drawn) == 2
        with (runs[0] / "seed-0/events.jsonl").open("a") as file:
            file.write('{"event": "step", "at_s": 600, "step": 600, "loss": 0.5}\n')
        await until(lambda: len(drawn) > 3)
        assert 20 * 50 <= drawn[0] <= watch._POINTS + 20
        assert drawn[2] <= watch._POINTS + 20

    simulated(tmp_path, visit)


def test_a_long_line_is_thinned_to_its_last_point() -> None:
    points = [(float(one), 0.0) for one in range(1001)]
    assert thinned(points, 100)[::91] == [(0.0, 0.0), (1000.0, 0.0)]
    assert thinned(points[:50], 100) == points[:50]
