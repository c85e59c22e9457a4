"""An adapter folder that somebody made to stop the server is refused, takes no memory, and nobody else waits for it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import served_adapters, tiny_models

LIMIT_S = 300
SPARE_BYTES = 400 << 20
"""Less than any of these folders asks for, more than a tiny adapter needs."""

SLOW = r"(\w|\w\w|\.|\.\w)+[XY]"
"""Doubles its time with every character of a module's path."""

PROGRAM = """
import json, resource, sys, threading
from pathlib import Path
from support import served_adapters
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.serving.store import AdapterStore

root, spare, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
store = AdapterStore(root, batch_backend(served_adapters.base_deck("classifier")), max_bytes=1 << 30)
store.acquire("good").result(60).close()
used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))
told = {}
for name in names:
    try:
        store.acquire(name).result(60).close()
        told[name] = ["loaded", ""]
    except Exception as error:
        told[name] = [type(error).__name__, str(error)]
store.load("good").result(60).close()
print(json.dumps(told))
"""


def edit(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def without_manifest(folder: Path, **values: Any) -> None:
    (folder / "tunedeck.json").unlink()
    edit(folder, **values)


def fifo(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


def long_header(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{")


def deflated(folder: Path) -> None:
    torch.save({"x": torch.zeros(150_000_000)}, folder / "big")
    with (
        zipfile.ZipFile(folder / "big") as big,
        zipfile.ZipFile(folder / "pytorch_adapter.bin", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in big.namelist():
            small.writestr(name, big.read(name))
    (folder / "big").unlink()
    assert (folder / "pytorch_adapter.bin").stat().st_size < 3_000_000


def one_value_as_many(folder: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(1 << 30)}, folder / "pytorch_adapter.bin")


def a_head_as_large_as_the_base(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.bert.stray": torch.zeros(1)}, file)


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "slow-target": ("lora-1", lambda f: without_manifest(f, target_modules=SLOW), "--pattern-time"),
    "slow-rank": ("lora-1", lambda f: edit(f, rank_pattern={SLOW: 4}), "--pattern-time"),
    "slow-alpha": ("lora-1", lambda f: edit(f, alpha_pattern={SLOW: 4}), "--pattern-time"),
    "many-ranks": ("lora-1", lambda f: edit(f, rank_pattern={f"{n}x": 4 for n in range(200_000)}), "--pattern-time"),
    "long-pattern": ("lora-1", lambda f: without_manifest(f, target_modules="a" * 20_000), "20000 characters"),
    "no-pattern": ("lora-1", lambda f: edit(f, rank_pattern={"(": 4}), "not a regular expression"),
    "fifo-weights": ("lora-1", lambda f: fifo(f, "adapter_model.safetensors"), "not a regular file"),
    "fifo-manifest": ("lora-1", lambda f: fifo(f, "tunedeck.json"), "not a regular file"),
    "fifo-beside": ("lora-1", lambda f: fifo(f, "notes.txt"), "not a regular file"),
    "dangling": ("lora-1", lambda f: (f / "link").symlink_to(f / "nothing"), "No such file"),
    "loop": ("lora-1", lambda f: (f / "link").symlink_to(f / "link"), "symbolic links"),
    "rank": ("lora-1", lambda f: edit(f, r=1_000_000), "has the shape"),
    "no-rank": ("lora-1", lambda f: edit(f, r=0), "r must be 1 or more"),
    "prompt": ("prompt-1", lambda f: edit(f, num_virtual_tokens=10_000_000), "has the shape"),
    "width": ("bottleneck-1", lambda f: edit_factor(f, 1e-7), "has the shape"),
    "endless-width": ("bottleneck-1", lambda f: edit_factor(f, 1e-320), "damaged"),
    "long-header": ("lora-1", long_header, "its header is said to have"),
    "deflated": ("bottleneck-1", deflated, "its header declares"),
    "one-value": ("bottleneck-1", one_value_as_many, "not a table of tensors"),
    "stray-head": ("lora-1", a_head_as_large_as_the_base, "does not fit this base"),
    "alpha-nan": ("lora-1", lambda f: edit(f, lora_alpha=math.nan), "lora_alpha must be a finite number"),
    "alpha-huge": ("lora-1", lambda f: edit(f, lora_alpha=1e300), "lora_alpha must be a finite number"),
    "alpha-pattern": ("lora-1", lambda f: edit(f, alpha_pattern={"query": math.inf}), "must be a finite number"),
    "scaling": ("bottleneck-1", lambda f: edit_bottleneck(f, scaling=math.nan), "scaling must be a finite number"),
    "probe": ("lora-1", lambda f: edit_probe(f, [999_999]), "token id 999999"),
    "deep": ("lora-1", lambda f: (f / "tunedeck.json").write_text("[" * 100_000), "damaged"),
    "huge": (
        "lora-1",
        lambda f: save_file({"x": torch.zeros(140 << 20)}, f / "more.safetensors"),
        "--max-folder-memory",
    ),
}


def edit_bottleneck(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    edit(folder, config={**config["config"], **values})


def edit_factor(folder: Path, factor: float) -> None:
    edit_bottleneck(folder, reduction_factor=factor)


def edit_probe(folder: Path, ids: list[int]) -> None:
    manifest = json.loads((folder / "tunedeck.json").read_text())
    manifest["probe"]["input_ids"] = ids
    (folder / "tunedeck.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What the store says of every hostile folder, in a process of its own that may not take much memory."""
    root, saved = tmp_path_factory.mktemp("root"), served_adapters.saved_adapters("classifier")
    shutil.copytree(saved / "lora-1", root / "good")
    for name, (kind, spoil, _) in HOSTILE.items():
        shutil.copytree(saved / kind, root / name)
        spoil(root / name)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(SPARE_BYTES), *HOSTILE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(tiny_models.__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (kind, text) for name, (kind, text) in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory by Linux' means")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_in_time_and_without_its_memory(
    told: dict[str, tuple[str, str]], name: str
) -> None:
    kind, text = told[name]
    assert kind == "AdapterFileError", text
    assert HOSTILE[name][2] in text
    assert "/tmp" not in text
