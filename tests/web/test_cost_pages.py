"""What training and a deployment cost, as the page computes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import ui
from support.simulated_page import simulated

import tunedeck as td
from tunedeck.planner.words import number_text, spread


async def cells_with(user: Any, *wanted: str) -> list[list[str]]:
    """Return the cells of the tables that are shown, once all of these are among them."""
    await user.should_see(ui.table, retries=600)
    for _ in range(600):
        rows = [list(row.values()) for shown in user.find(ui.table).elements for row in shown.rows]
        if set(wanted) <= {str(cell) for row in rows for cell in row}:
            return rows
        await asyncio.sleep(0.1)
    raise AssertionError(f"{wanted} is not in a table")


def test_the_plan_follows_its_sliders(tmp_path: Path) -> None:
    row = td.plan("bge-large-zh", samples=5000, tokens=64, epochs=2, methods="lora").rows[0]
    more = td.plan("bge-large-zh", samples=1_000_000, tokens=64, epochs=2, methods="lora").rows[0]
    quoted = td.plan("minicpm-2b", samples=5000, tokens=64, epochs=2, methods="lora", gpus="t4", price_list="reference")

    async def visit(user: Any) -> None:
        await user.open("/cost?model=bge-large-zh&method=lora&samples=5000&tokens=64&epochs=2")
        cells = await cells_with(user, spread(row.cost), spread(quoted.rows[0].cost))
        assert [row.method, row.offer.gpu.name, "yes"] in [cell[1:4] for cell in cells]
        await user.should_see("On this machine")
        await user.should_see("tunedeck plan --model bge-large-zh --method lora --samples 5000 --tokens 64 --epochs 2")
        (examples,) = [one for one in user.find(ui.slider).elements if one.props["aria-label"] == "number of examples"]
        examples.set_value(12)
        await cells_with(user, spread(more.cost))
        assert examples.props["aria-valuetext"] == "1,000,000"

    simulated(tmp_path, visit)


def test_a_deployment_follows_its_load(tmp_path: Path) -> None:
    found = td.deploy_cost("qwen-7b", rate=round(1_000_000 / 86_400, 6), adapters=20).cheapest
    assert found is not None

    async def visit(user: Any) -> None:
        await user.open("/cost/deployment?requests=1000000&adapters=20")
        await user.should_see(f"{number_text(found.month.expected)} CNY a month", retries=100)
        await user.should_see("20 adapters on one base")
        user.find("The training cost, CNY").type("100")
        await user.should_see("days the deployment has cost as much as the training", retries=100)
        await user.open("/cost/deployment?model=bge-large-zh&inputs=2048")
        await user.should_see("takes at most 512 tokens", retries=100)

    simulated(tmp_path, visit)
