"""A method that another package brings works everywhere with no other edit; its code is that of docs/plug-ins.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import tiny_models
from support.labelled_words import rows, write_csv

from tunedeck.core.toml import parse_toml

PAGE = Path(__file__).parents[2] / "docs" / "plug-ins.md"
NEXT_PART = "# A task from another package\n"
BLOCK = re.compile(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Installed:
    """A folder on PYTHONPATH with packages in it, and what a process said that was started with it."""

    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TUNEDECK_LANG": "en"}
        return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", code, *arguments)

    def tunedeck(self, *arguments: str) -> str:
        done = self.run("-m", "tunedeck", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


def install(folder: Path, name: str, points: dict[str, str], files: dict[str, str]) -> None:
    """Lay a package out as pip would: its modules, and the metadata with its entry points."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{kind} = {place}" for kind, place in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[tunedeck.methods]", *lines, ""]))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The package of the page."""
    folder = tmp_path_factory.mktemp("site-packages")
    files = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8").split(NEXT_PART)[0]))
    project = parse_toml(files.pop("pyproject.toml"))["project"]
    install(folder, project["name"], project["entry-points"]["tunedeck.methods"], files)
    return Installed(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows(48)))


@pytest.fixture(scope="module")
def trained(installed: Installed, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `tunedeck train` with the plug-in's own flag."""
    out = tmp_path_factory.mktemp("runs") / "scale"
    installed.tunedeck("train", *common(data), "--method", "scale", "--outputs-per-factor", "2", "--out", str(out))
    return out


def common(data: str) -> tuple[str, ...]:
    return (
        "--model",
        tiny_models.folder_of("bert", "classifier"),
        "--data",
        data,
        "--max-steps",
        "4",
        "--dtype",
        "float32",
    )


def test_a_plug_in_is_planned_and_can_be_recommended(installed: Installed) -> None:
    work = ("--model", tiny_models.folder_of("llama", "causal"), "--samples", "100", "--tokens", "32", "--gpu", "a10")
    plan = json.loads(installed.tunedeck("plan", *work, "--method", "scale,full", "--json"))
    row = next(row for row in plan["rows"] if row["method"] == "scale")
    factors = 2 * (32 + 16)  # two layers, each with the 32 outputs of q and the 16 of v
    assert row["memory_parts_bytes"]["trainable"] == 4 * factors
    assert plan["recommendation"]["method"] == "scale"


def test_the_activations_of_a_plug_in_count_in_a_plan(installed: Installed) -> None:
    code = """
from tunedeck.methods.registry import config_of
from tunedeck.planner.memory import Setup, layer_bytes_per_token, method_facts
from tunedeck.planner.models import find_planned_model
import sys
spec = find_planned_model(sys.argv[1]).spec
kept = []
for kind in ("scale", "prompt_tuning"):
    method = config_of(kind, {})
    kept.append(layer_bytes_per_token(Setup(spec, method, method_facts(spec, method), 1, 8, False)))
print(kept[0] - kept[1], "torch" in sys.modules)
"""
    done = installed.python(code, tiny_models.folder_of("bert", "classifier"))
    assert done.stdout.split() == [str(2.0 * (32 + 32)), "False"], done.stderr  # query and value, 2 bytes a number


def test_a_plug_in_is_trained_and_its_folder_says_what_it_is(trained: Path) -> None:
    manifest = json.loads((trained / "adapter" / "tunedeck.json").read_text())
    assert manifest["method"] == {"kind": "scale", "outputs_per_factor": 2, "target_modules": None}
    assert {file.name for file in (trained / "adapter").iterdir()} == {"model.safetensors", "tunedeck.json"}


def test_a_plug_in_is_compared_and_searched(installed: Installed, data: str, tmp_path: Path) -> None:
    methods = ("--methods", "scale,lora:r=2:learning_rate=1e-3", "--search", "2")
    installed.tunedeck("compare", *common(data), *methods, "--out", str(tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "search.jsonl").read_text().splitlines()]
    assert {"learning_rate", "outputs_per_factor"} <= {line.get("param_name") for line in lines}
    assert sorted(one.name for one in (tmp_path / "out" / "runs").iterdir()) == ["lora", "scale"]


def test_a_plug_in_is_loaded_mixed_merged_exported_and_served(
    installed: Installed, trained: Path, tmp_path: Path
) -> None:
    done = installed.python(
        DECK,
        tiny_models.folder_of("bert", "classifier"),
        str(trained / "adapter"),
        str(tmp_path),
        str(Path(tiny_models.__file__).parents[1]),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["changed"] > 1e-3
    assert found["mixed"] < 1e-5
    assert found["again"] == 0
    assert found["merged"] < 1e-5
    assert found["served"] in tiny_models.LABELS
    assert "'scale' is a scale adapter; only LoRA adapters and heads alone share one graph" in found["multi"]
    assert "a scale adapter is kept as tunedeck; peft has no place for it" in found["peft"]
    assert "scale" in (tmp_path / "card.md").read_text(encoding="utf-8")
    assert (tmp_path / "onnx" / "model.onnx").stat().st_size > 0


DECK = """
import json, sys
from pathlib import Path
base, folder, home, tests = sys.argv[1:]
sys.path.append(tests)
from support import tiny_models as tiny
import tunedeck as td
from tunedeck.export.card import save_card
from tunedeck.export.folders import convert_adapter
from tunedeck.serving import Request, open_engine
from tunedeck_scale.config import ScaleConfig

def opened():
    return td.Deck.load(base, td.Classify(labels=tiny.LABELS), dtype="float32", device="cpu")

def refusal(call, *arguments):
    try:
        call(*arguments)
    except td.TunedeckError as error:
        return str(error)

home, deck, batch = Path(home), opened(), tiny.token_batch(3)
deck.load_adapter(folder, name="scale")
assert deck.adapter("scale").config == ScaleConfig(outputs_per_factor=2)
tiny.stir(deck, "scale")
tiny.add_stirred(deck, "lora", td.LoraConfig(r=2))
names = ["lora", "scale", None]
mixed = tiny.logits_of(deck, batch, names)
alone = [tiny.logits_of(deck, tiny.rows_of(batch, [row]), name) for row, name in enumerate(names)]
scaled = tiny.logits_of(deck, batch, "scale")
deck.save("scale", home / "adapters" / "scale")
again = opened()
again.load_adapter(home / "adapters" / "scale")
td.save_onnx(deck, "scale", home / "onnx")
save_card(home / "adapters" / "scale", home / "card.md", licence="mit")
found = {
    "changed": tiny.difference(scaled, tiny.logits_of(deck, batch)),
    "mixed": max(tiny.difference(mixed[[row]], logits) for row, logits in enumerate(alone)),
    "again": tiny.difference(tiny.logits_of(again, batch, "scale"), scaled),
    "merged": tiny.difference(deck.merge("scale")(**batch).logits.detach(), scaled),
    "multi": refusal(td.save_onnx_multi, deck, ["scale"], home / "multi"),
    "peft": refusal(convert_adapter, home / "adapters" / "scale", home / "peft", "peft"),
}
with open_engine(opened(), home / "adapters") as engine:
    request = Request("scale", "w10 w50")
    engine.submit(request)
    found["served"] = request.done.result(timeout=60).label
print(json.dumps(found))
"""
