"""How long a person waits for the first answer: `tunedeck --help`, `predict`, `chat`, `serve`, beside another checkout.

    python bench/first_answer.py --before ../old-checkout --out bench/results/first_answer.json

Both checkouts take turns, each command in a process of its own; medians of its wall and CPU time. `serve` is
measured until its first answer to GET /health.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import tunedeck as td
from tunedeck.core.measurement import this_machine

CHAT = "bundled:smollm2-135m-instruct"
Timed: TypeAlias = dict[str, dict[str, list[tuple[float, float]]]]
BARE = """
import sys, typer
app = typer.Typer()
@app.command()
def run(number: int = typer.Option(1, help="a number")) -> None: "Do nothing."
sys.argv[1:] = ["--help"]
app()
"""
FLOORS = {
    "import typer, rich": "import typer, rich",
    "--help of a Typer app with one option": BARE,
    "import torch, transformers": "import torch, transformers",
}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", help="some of the commands; the others stay as they are in the file")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sides = {"now": Path(__file__).resolve().parents[1] / "src"}
    if asked.before:
        sides["before"] = asked.before.resolve() / "src"
    with tempfile.TemporaryDirectory() as scratch:
        adapter = an_adapter(Path(scratch))
        calls = {name: call for name, call in commands(adapter).items() if not asked.only or name in asked.only}
        found: Timed = {name: {} for name in calls}
        for number in range(asked.rounds + 1):  # the first warms up
            for name, (call, arguments) in calls.items():
                for side, source in sides.items():
                    if name in FLOORS and side != "now":
                        continue
                    seconds = call(source, arguments)
                    if number:
                        found[name].setdefault(side, []).append(seconds)
    print(json.dumps(result := results(found, asked.rounds, asked.out), indent=2))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def results(found: Timed, rounds: int, file: Path | None) -> dict[str, Any]:
    """Return the medians of each command and side, beside those of other commands in the file."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}
    machine = this_machine()
    told = {"rounds": rounds, "load": round(os.getloadavg()[1], 1)}
    new = {name: {**told, **{side: medians(times) for side, times in by.items()}} for name, by in found.items()}
    return {"cpu": machine.cpu, "cores": machine.cpu_cores, "seconds": {**kept.get("seconds", {}), **new}}


def commands(adapter: Path) -> dict[str, tuple[Callable[[Path, list[str]], tuple[float, float]], list[str]]]:
    """Return each command's name with how it is measured and its arguments."""
    tunedeck = ["-m", "tunedeck"]
    predict = ["predict", "a text", "--adapter", str(adapter)]
    chat = ["chat", "--model", CHAT, "--max-tokens", "1", "--temperature", "0"]
    serve = ["serve", "--adapters", str(adapter.parent)]
    return {
        **{name: (until_the_end, ["-c", code]) for name, code in FLOORS.items()},
        "help": (until_the_end, [*tunedeck, "--help"]),
        "train --help": (until_the_end, [*tunedeck, "train", "--help"]),
        "predict": (until_the_end, [*tunedeck, *predict]),
        "chat, one token": (until_the_end, [*tunedeck, *chat]),
        "serve, ready": (until_ready, [*tunedeck, *serve]),
    }


def an_adapter(folder: Path) -> Path:
    """Save an untrained LoRA classifier on the bundled MiniLM."""
    deck = td.Deck.load("bundled:all-minilm-l6-v2", td.Classify(labels=("no", "yes")))
    deck.add("first", td.LoraConfig(target_modules=("query", "value")))
    deck.save("first", folder / "first")
    return folder / "first"


def until_the_end(source: Path, arguments: list[str]) -> tuple[float, float]:
    """Return wall and CPU seconds of a whole process."""
    began = time.perf_counter()
    process = started(source, arguments)
    assert process.stdin is not None
    process.stdin.write(b"Hello\n")
    process.stdin.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def until_ready(source: Path, arguments: list[str]) -> tuple[float, float]:
    """Return the wall seconds until a server answers, and its CPU seconds until it has ended after that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    process = started(source, [*arguments, "--port", str(port)])
    while True:
        assert process.poll() is None, arguments
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.02)
    ready = time.perf_counter() - began
    process.terminate()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return ready, used.ru_utime + used.ru_stime


def started(source: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start Python with the package of one checkout."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"},
    )


def medians(times: list[tuple[float, float]]) -> dict[str, float]:
    """Return the medians of wall and CPU seconds."""
    wall, cpu = zip(*times, strict=True)
    return {"wall_s": round(median(wall), 2), "cpu_s": round(median(cpu), 2)}


if __name__ == "__main__":
    main()
