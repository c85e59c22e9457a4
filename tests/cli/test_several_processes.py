"""Two processes take the very steps of one, whether each holds the base whole or a half of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command
from support.serving_process import free_port

from tunedeck.formats.tensors import read_safetensors

RUN = (
    "data: {{train: {words}}}\nmodel: {model}\nmethod: {method}\ndtype: float32\n"
    "training: {{max_steps: 14, batch_size: 7, gradient_accumulation_steps: 2, eval_steps: 5, "
    "learning_rate: 0.01, checkpoint_every: 4, {more}}}\n"
)


FSDP = ["accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2"]
TWO_MACHINES = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]


def launch(launcher: list[str], arguments: list[str]) -> subprocess.Popen[str]:
    """The command line by a launcher, on CPUs."""
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "tunedeck", "train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_by(*started: subprocess.Popen[str]) -> str:
    """What processes that must end well print to standard error."""
    texts = [process.communicate()[1] for process in started]
    assert all(process.returncode == 0 for process in started), "".join(texts)
    return "".join(texts)


def curve(folder: Path) -> list[float]:
    """Every loss, of steps and of evaluations."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["loss"] for event in events if event["event"] in ("step", "eval")]


METHODS = {
    "lora": ("{kind: lora, r: 4, target_modules: all-linear}", "seed: 0"),
    "bottleneck": ("{kind: bottleneck, name: double_seq_bn}", "gradient_checkpointing: true"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in one process, each trained by the first test that asks for it."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "method"),
    [("fsdp", "lora"), ("fsdp", "bottleneck"), ("two machines", "lora")],  # two machines each hold the base whole
)
def test_two_processes_follow_the_curve_of_one(
    launcher: str, method: str, tunedeck: Command, words: Path, runs: Path, tmp_path: Path
) -> None:
    config, more = METHODS[method]
    run, alone, together = runs / f"{method}.yaml", runs / method, tmp_path / "together"
    if not alone.exists():
        model = tiny_models.folder_of("bert", "classifier")
        run.write_text(RUN.format(words=words, model=model, method=config, more=more), encoding="utf-8")
        assert tunedeck("train", run, "--out", alone).code == 0
    arguments = [str(run), "--out", str(together)]
    if launcher == "two machines":  # an agent for each, as they would find one another over a network
        place = [*TWO_MACHINES, "--rdzv-endpoint", f"localhost:{free_port()}"]
        said = said_by(*(launch([*place, "--node-rank", rank], arguments) for rank in "01"))
    else:
        said = said_by(launch([*FSDP, "--main_process_port", "0"], arguments))
    assert curve(together) == pytest.approx(curve(alone), abs=1e-4)
    assert said.count("examples to train on") == 1
    one, two = (json.loads((folder / "measurement.json").read_text()) for folder in (alone, together))
    assert (two["steps"], two["padded_share"] < 0.9) == (one["steps"], True)
    if method == "lora":
        whole, parts = (
            read_safetensors(folder / "adapter" / "adapter_model.safetensors") for folder in (alone, together)
        )
        assert max(tiny_models.difference(whole[name], parts[name]) for name in whole) < 1e-4
