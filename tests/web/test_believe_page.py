"""The result of a run: metrics before and after, a matrix whose cells list texts, labels that are corrected."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import ui
from support.simulated_page import simulated

from tunedeck.comparison.report.values import Confusion, Mistake
from tunedeck.core.reliability import Bin, Reliability, TemperatureScaling
from tunedeck.data.table import read_table

MARKUP = "<b>fine</b> {{ 7*7 }}"


def finished_run(folder: Path) -> None:
    (folder / "adapter").mkdir(parents=True)
    given = {"base": {"reference": "bundled:x"}, "task": {"kind": "classify"}, "method": {"kind": "lora"}}
    (folder / "adapter/tunedeck.json").write_text(json.dumps(given))
    (folder / "events.jsonl").touch()
    metrics = {"stopped": "finished", "start": {"accuracy": 0.5}, "accuracy": 0.75, "temperature": 1.3725}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "measurement.json").write_text('{"train_s": 90, "peak_memory_bytes": 2000000000}')
    (folder / "config.yaml").write_text("data: {train: a.csv}")


def examined(source: str) -> Any:
    from tunedeck.comparison.examine import Examined

    answered = (("awful", "yes", "no"), (MARKUP, "no", "yes"), ("good", "yes", "yes"))
    found = Reliability(0.1, 0.2, (Bin(3, 0.8, 0.66),))
    confusion = Confusion("mail", ("no", "yes"), ((0, 1), (1, 1)))
    mistakes = (Mistake("awful", "yes", "no", 0.97), Mistake(MARKUP, "no", "yes", 0.9))
    return Examined(source, answered, confusion, mistakes, TemperatureScaling(1.4, found, found))


def press(user: Any, fits: Callable[[Any], bool]) -> None:
    """Press all buttons that fit."""
    for one in [one for one in user.find(ui.button).elements if fits(one)]:
        for listener in [listener for listener in one._event_listeners.values() if listener.type == "click"]:
            with user:
                one._handle_event({"listener_id": listener.id, "args": {}})


def test_a_run_shows_metrics_before_and_after_but_no_temperature(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs/mail")

    async def visit(user: Any) -> None:
        await user.open("/run?name=runs/mail")
        rows = [[*row.values()][1:] for shown in user.find(ui.table).elements for row in shown.rows]
        assert ["accuracy", "0.5000", "0.7500"] in rows
        assert "temperature" not in {row[0] for row in rows if row}
        await user.should_see("90 s")

    simulated(tmp_path, visit)


def test_a_cell_lists_its_texts_and_a_wrong_label_is_corrected_in_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(tmp_path / "runs/mail")
    file = tmp_path / "a.csv"
    file.write_text(f"text,label\n awful,yes\n{MARKUP},no\ngood,yes\nawful,no\n")
    before = file.read_bytes()

    async def visit(user: Any) -> None:
        await user.open("/run?name=runs/mail")
        monkeypatch.setattr(
            sys.modules["tunedeck.web.pages.believe"], "_examined", lambda adapter, data, whole: examined(data.train)
        )
        user.find("Predict them").click()
        await user.should_see("The worst mistakes", retries=50)
        await user.should_see("Save 0 changes as a new file")
        press(user, lambda one: one.props.get("aria-label") == "1 texts of no predicted as yes")
        await user.should_see("no predicted as yes", retries=50)
        assert sum(one.text == MARKUP for one in user.find(ui.label).elements) == 2
        press(user, lambda one: one.text == "This label is wrong")
        await user.should_see("Save 2 changes as a new file", retries=50)
        user.find("Save 2 changes as a new file").click()
        await user.should_see("data/a-mended.csv", retries=100)

    simulated(tmp_path, visit)
    assert file.read_bytes() == before
    rows = read_table(str(tmp_path / "data/a-mended.csv")).rows
    assert [row["label"] for row in rows] == ["no", "yes", "yes", "no"]
