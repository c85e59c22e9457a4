"""A task of another package, installed with pip in a fresh environment, works everywhere with no other edit."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from support import tiny_models
from support.fresh_environment import Environment

from tunedeck.core import task_settings
from tunedeck.core.errors import ConfigError
from tunedeck.core.plug_ins import load_plug_ins
from tunedeck.tasks import registry
from tunedeck.tasks.base import TaskView
from tunedeck.tasks.classify.config import ClassifyConfig

USE = """
import asyncio, json, sys
from pathlib import Path

import httpx

import tunedeck as td
from tunedeck.core.errors import UnsupportedKindError
from tunedeck.export.card import save_card
from tunedeck.export.standalone import open_adapter
from tunedeck.export.vllm import save_vllm
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_service

adapter, out = Path(sys.argv[1]), Path(sys.argv[2])
deck = td.Deck.open(adapter, dtype="float32")
(name,) = deck.adapters
found = {"predicted": deck.predict(["w5 w6", "w90"], adapter=name)}
found["card"] = save_card(adapter, out, licence="mit").read_text()
refusals = {
    "onnx": lambda: td.save_onnx(deck, name, out / "onnx"),
    "vllm": lambda: save_vllm({name: open_adapter(adapter)}, out / "vllm"),
}
for key, refused in refusals.items():
    try:
        refused()
    except UnsupportedKindError as error:
        found[key] = str(error)
service = open_service(deck, adapter.parent, ServerSettings())

async def ask():
    transport = httpx.ASGITransport(create_app(service, Keys(None)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.post("/v1/answers", json={"model": "adapter", "input": ["w5 w6", "w90"]})
        return answer.json()

found["served"] = asyncio.run(ask())
service.engine.close()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose number is 1 where a word of the upper half is in them, and a run that learns it."""
    folder = tmp_path_factory.mktemp("run")
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "stars"), *((f"w{number} w{number + 1}", number // 60) for number in range(5, 115))])
    values = {
        "model": tiny_models.folder_of("bert", "classifier"),
        "data": {"train": str(folder / "data.csv"), "score": "stars"},
        "task": {"kind": "number", "max_length": 32},
        "method": {"kind": "lora", "r": 4},
        "training": {"max_steps": 8, "learning_rate": 0.01},
        "dtype": "float32",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


def test_a_task_is_trained_from_a_run_file_used_put_on_a_card_refused_and_served(
    environment: Environment, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "stars"
    done = json.loads(environment.tunedeck("train", run_file, "--out", out, "--json")[0])
    assert done.keys() >= {"mse", "loss"}
    assert json.loads((out / "adapter" / "tunedeck.json").read_text())["task"] == {"kind": "number", "max_length": 32}
    found = json.loads(environment.python(USE, out / "adapter", tmp_path))
    assert [round(one["answer"], 4) for one in found["served"]["data"]] == pytest.approx(found["predicted"], abs=1e-3)
    assert "from tunedeck_number.task import Number" in found["card"]
    assert "deck.predict" in found["card"]
    assert found["onnx"].startswith("the task number has no ONNX form")
    assert "is for the task number, which vLLM does not serve" in found["vllm"]


def test_a_task_is_compared_by_its_own_metric(environment: Environment, run_file: Path, tmp_path: Path) -> None:
    environment.tunedeck("compare", run_file, "--methods", "lora:r=2", "--out", tmp_path / "c")
    result = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert (result["metric"], result["higher_is_better"]) == ("mse", False)
    assert all(row["interval"] is not None for row in result["rows"])
    assert "squared error" in (tmp_path / "c" / "report.html").read_text()


def point(monkeypatch: pytest.MonkeyPatch, name: str, found: object) -> EntryPoint:
    """An entry point whose object is `found`."""
    module = ModuleType(f"plug_in_{name}")
    module.FOUND = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, f"{module.__name__}:FOUND", task_settings.ENTRY_POINTS)


def test_a_broken_task_names_its_package_and_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("gone", "no_such_package:Gone", task_settings.ENTRY_POINTS),
        point(monkeypatch, "number", 3),
        point(monkeypatch, "half", dataclass(type("Half", (), {"kind": "half"}))),
        point(monkeypatch, "classify", ClassifyConfig),
        point(monkeypatch, "labels", ClassifyConfig),
    ]
    with pytest.warns(UserWarning, match="cannot be used"):
        found, plug_ins = load_plug_ins(points, "task", task_settings.CONFIGS, task_settings.check_plug_in)
    assert found == task_settings.CONFIGS
    broken = {plug_in.name: plug_in.error or "" for plug_in in plug_ins}
    assert "ModuleNotFoundError: No module named 'no_such_package'" in broken["gone"]
    assert "the package no_such_package:Gone cannot be used" in broken["gone"]
    assert "its entry point is not a dataclass of settings" in broken["number"]
    assert "the task 'half' lacks view, as_described" in broken["half"]
    assert "the name classify is taken by another task" in broken["classify"]
    assert "its kind is 'classify', not the entry point's name" in broken["labels"]


def test_a_task_whose_view_is_broken_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking: Any = SimpleNamespace(kind="half", capabilities=frozenset({"text"}), __qualname__="Half")
    points = [point(monkeypatch, "number", 3), point(monkeypatch, "half", TaskView(task=lacking))]
    with pytest.warns(UserWarning, match="cannot be used"):
        found, plug_ins = load_plug_ins(points, "task", registry.TASKS, registry.check_plug_in)
    assert found == registry.TASKS
    number, half = (plug_in.error or "" for plug_in in plug_ins)
    assert "its view is a int, not a TaskView" in number
    assert re.search(r"the task 'half' lacks auto_class, .*objective.*, generate, stream", half)


def test_asking_for_a_broken_task_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"gone": "the task 'gone' of the package p cannot be used: it is gone"}
    monkeypatch.setattr(registry, "BROKEN", broken)
    with pytest.raises(ConfigError, match="the package p cannot be used"):
        registry.view_of("gone")
    monkeypatch.setattr(task_settings, "BROKEN", broken)
    with pytest.raises(ConfigError, match="the package p cannot be used"):
        registry.task_of({"kind": "gone"})
