"""A method of another package, installed with pip in a fresh environment, works everywhere with no other edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import tiny_models
from support.fresh_environment import Environment
from support.labelled_words import rows, write_csv

TEXTS = ["w10 w50", "w20 w60 w70", "w30"]
ACTIVATIONS = """
import sys
from tunedeck.methods.registry import config_of
from tunedeck.planner.memory import Setup, layer_bytes_per_token, method_facts
from tunedeck.planner.models import find_planned_model

spec = find_planned_model(sys.argv[1]).spec
kept = []
for kind in ("scale", "prompt_tuning"):
    method = config_of(kind, {})
    kept.append(layer_bytes_per_token(Setup(spec, method, method_facts(spec, method), 1, 8, False)))
print(kept[0] - kept[1], "torch" in sys.modules)
"""
DECK = """
import asyncio
import json
import sys
from pathlib import Path

import httpx
import torch

import tunedeck as td
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_service
from tunedeck_scale.config import ScaleConfig

base, folder, home, *texts = sys.argv[1:]
home = Path(home)


def opened():
    return td.Deck.load(base, td.Classify(labels=("blue", "green", "red")), dtype="float32", device="cpu")


def answers(adapter, deck=None):
    return [list(one.probabilities.values()) for one in (deck or mixed).predict(texts, adapter=adapter)]


def refusal(call, *arguments):
    try:
        call(*arguments)
    except td.TunedeckError as error:
        return str(error)


mixed = opened()
mixed.load_adapter(folder, name="scale")
mixed.add("lora", td.LoraConfig(r=2))
with torch.no_grad():
    for parameter in mixed.adapter("lora").parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
for name in mixed.adapters:
    mixed.save(name, home / "adapters" / name)
again = opened()
again.load_adapter(home / "adapters" / "scale")
service = open_service(opened(), home / "adapters", ServerSettings())


async def ask(name):
    transport = httpx.ASGITransport(create_app(service, Keys(None)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.post("/classify", json={"model": name, "input": texts})).json()


served = {name: asyncio.run(ask(name)) for name in ("scale", "lora")}
service.engine.close()
merged = td.save_merged(mixed, "scale", home / "merged")
td.save_onnx(mixed, "scale", home / "onnx")
print(json.dumps({
    "config": mixed.adapter("scale").config == ScaleConfig(outputs_per_factor=2),
    "alone": {name: answers(name) for name in ("lora", "scale")},
    "mixed": answers(["lora", "scale", None]),
    "base": answers(None),
    "again": answers("scale", again),
    "merged": merged.max_abs,
    "served": served,
    "multi": refusal(td.save_onnx_multi, mixed, ["scale"], home / "multi"),
}))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows(48))


def common(data: Path) -> tuple[object, ...]:
    model = tiny_models.folder_of("bert", "classifier")
    return ("--model", model, "--data", data, "--max-steps", 4, "--dtype", "float32")


def difference(left: list[list[float]], right: list[list[float]]) -> float:
    """Return the largest difference of two tables of probabilities."""
    return max(abs(a - b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True))


def test_a_plug_in_is_planned_and_can_be_recommended(environment: Environment) -> None:
    work = ("--model", tiny_models.folder_of("llama", "causal"), "--samples", 100, "--tokens", 32, "--gpu", "a10")
    plan = json.loads(environment.run("tunedeck", "plan", *work, "--method", "scale,full", "--json"))
    row = next(row for row in plan["rows"] if row["method"] == "scale")
    factors = 2 * (32 + 16)  # two layers, each with the 32 outputs of q and the 16 of v
    assert row["memory_parts_bytes"]["trainable"] == 4 * factors
    assert plan["recommendation"]["method"] == "scale"


def test_the_activations_of_a_plug_in_count_in_a_plan(environment: Environment) -> None:
    kept = environment.run("python", "-c", ACTIVATIONS, tiny_models.folder_of("bert", "classifier"))
    assert kept.split() == [str(2.0 * (32 + 32)), "False"]  # query and value, 2 bytes a number


def test_a_plug_in_is_compared_and_searched(environment: Environment, data: Path, tmp_path: Path) -> None:
    methods = ("--methods", "scale,head", "--search", 1)
    environment.tunedeck("compare", *common(data), *methods, "--out", tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "search.jsonl").read_text().splitlines()]
    assert {"learning_rate", "outputs_per_factor"} <= {line.get("param_name") for line in lines}
    assert sorted(one.name for one in (tmp_path / "out" / "runs").iterdir()) == ["head", "scale"]


def test_a_plug_in_is_trained_loaded_mixed_merged_exported_and_served(
    environment: Environment, data: Path, tmp_path: Path
) -> None:
    own_flag = ("--method", "scale", "--outputs-per-factor", 2)
    environment.tunedeck("train", *common(data), *own_flag, "--out", tmp_path / "run")
    trained = tmp_path / "run" / "adapter"
    manifest = json.loads((trained / "tunedeck.json").read_text())
    assert manifest["method"] == {"kind": "scale", "outputs_per_factor": 2, "target_modules": None}
    assert {file.name for file in trained.iterdir()} == {"model.safetensors", "tunedeck.json"}

    base = tiny_models.folder_of("bert", "classifier")
    found = json.loads(environment.python(DECK, base, trained, tmp_path, *TEXTS).splitlines()[-1])
    assert found["config"]
    assert difference(found["alone"]["scale"], found["base"]) > 1e-3
    alone = [found["alone"]["lora"][0], found["alone"]["scale"][1], found["base"][2]]
    assert difference(found["mixed"], alone) < 1e-5
    assert found["again"] == found["alone"]["scale"]
    assert found["merged"] < 1e-5
    assert "'scale' is of the kind scale; only LoRA adapters and heads can share one graph" in found["multi"]
    assert (tmp_path / "onnx" / "model.onnx").stat().st_size > 0

    environment.tunedeck("export", "card", "--adapter", trained, "--out", tmp_path / "card.md", "--licence", "mit")
    assert "scale" in (tmp_path / "card.md").read_text(encoding="utf-8")
    refused = environment.tunedeck("export", "peft", "--adapter", trained, "--out", tmp_path / "peft", code=2)
    assert "peft cannot store an adapter of the kind scale" in refused[1]
    for name, answer in found["served"].items():
        assert difference([row["probs"] for row in answer["data"]], found["alone"][name]) < 1e-5
