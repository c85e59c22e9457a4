"""Adapters compared side by side and merged from the shelf."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import ui
from support.simulated_page import simulated


def adapter(folder: Path, accuracy: float) -> None:
    folder.mkdir(parents=True)
    given = {"base": {"reference": "bundled:x"}, "task": {"kind": "classify"}, "method": {"kind": "lora"}}
    (folder / "tunedeck.json").write_text(json.dumps({**given, "metrics": {"accuracy": accuracy}}))


def test_adapters_are_compared_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "mail", 0.75)
    adapter(tmp_path / "l'aw", 0.5)
    started: list[Any] = []

    async def visit(user: Any) -> None:
        await user.open("/")
        processes = sys.modules["tunedeck.web.processes"].Processes
        monkeypatch.setattr(processes, "start", lambda self, name, arguments: started.append((name, arguments)))
        compared, merged = sorted(user.find(ui.select).elements, key=lambda one: one.id)
        with user:
            compared.set_value(["mail", "l'aw"])
        await user.should_see("tunedeck eval --adapter mail", retries=50)
        (shown,) = user.find(ui.table).elements
        assert ["accuracy", "0.7500", "0.5000"] in [[*row.values()][1:] for row in shown.rows]
        user.find(marker="merge").click()
        await user.should_see("give two or more adapter folders")
        with user:
            merged.set_value(["mail", "l'aw"])
        user.find("New name").clear().type("../both")
        user.find(marker="merge").click()
        await user.should_see("running", retries=50)

    simulated(tmp_path, visit)
    assert started == [("both", ["adapters", "merge", "mail", "l'aw", "--out", "both"])]
