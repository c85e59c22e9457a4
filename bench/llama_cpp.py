"""Tokens per second beside llama.cpp's server, with the same SmolLM2 file and the same LoRA adapters.

    python bench/llama_cpp.py --server ./llama-server --threads 2 --out bench/results/llama_cpp.json

`--server` is llama.cpp's `llama-server`, or a command that takes its options. It reads the bundled chat model's GGUF
file, a second one also four LoRA adapters written as by `tunedeck export gguf-lora`; this engine runs in a process for
each precision. All processes live on and take turns, as many threads each; medians and ratios are printed.

"decode" and "prompt" are what each side measures itself (llama.cpp's `timings`, the engine's times of a request), so
that HTTP does not count; "streams" is the time from sending all requests until the last answer. Processor seconds are
those of the whole piece of work: a busy machine distorts them least.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeAlias, final

import psutil
import torch

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.export.gguf_lora import save_gguf_lora
from tunedeck.export.standalone import open_adapter
from tunedeck.models.source import find_model
from tunedeck.serving import Request, Sequence, open_engine

MODEL = "bundled:smollm2-135m-instruct"
PRECISIONS = ("bfloat16", "int8", "nf4")
LORAS = ("lora-0", "lora-1", "lora-2", "lora-3")
SIDE = "llama.cpp"
Figures: TypeAlias = dict[str, dict[str, float]]
"""A number for each side and piece of work."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Seconds of one request: until its first token, and from there to its last."""

    prompt_s: float
    decode_s: float


class Side(Protocol):
    """Long-lived processes."""

    pids: list[int]

    def answer(self, prompts: list[list[int]], adapters: list[str | None], tokens: int) -> list[Answered]:
        """Answer all prompts at once, each with exactly `tokens` tokens."""
        ...


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="llama.cpp's llama-server with its path, or a command that takes its options")
    parser.add_argument("--version", default="", help="of llama.cpp and how it was built, for the results")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of the answer of one stream")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream-tokens", type=int, default=32, help="tokens of each answer of several streams")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        serve_lines(*asked.worker)
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        save_loras(Path(folder))
        sides: dict[str, Side] = {SIDE: LlamaServer(stack, asked.server, Path(folder), asked.threads, asked.streams)}
        sides |= {f"tunedeck {p}": Tunedeck(stack, p, folder, asked.threads) for p in asked.precisions}
        rates, used = measure(sides, asked)
        memory = {
            name: [round(psutil.Process(pid).memory_info().rss / 1e6) for pid in side.pids]
            for name, side in sides.items()
        }
    result = {
        "cpu": this_machine().cpu,
        "threads": asked.threads,
        "load": round(os.getloadavg()[1], 1),
        "llama.cpp": asked.version,
        "rounds": asked.rounds,
        "settings": {name: getattr(asked, name) for name in ("tokens", "streams", "stream_tokens")},
        "tokens_per_s": rates,
        "ratio": {n: {w: round(r / rates[SIDE][w], 2) for w, r in own.items()} for n, own in rates.items()},
        "processor_s": used,
        "processor_ratio": {n: {w: round(used[SIDE][w] / s, 2) for w, s in own.items()} for n, own in used.items()},
        "resident_mb": memory,
    }
    print(json.dumps(result, indent=2))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(sides: dict[str, Side], asked: argparse.Namespace) -> tuple[Figures, Figures]:
    """Return median tokens per second and processor seconds of each side and piece of work.

    The sides take turns, the first round warms up.
    """
    draw = random.Random(0)
    mixed: list[str | None] = [LORAS[n % len(LORAS)] for n in range(asked.streams)]
    work: dict[str, Callable[[Side], float]] = {
        "decode": lambda side: decoding(side, draw, None, asked.tokens),
        "decode, LoRA": lambda side: decoding(side, draw, LORAS[0], asked.tokens),
        "prompt": lambda side: 512 / side.answer([prompt(draw, 512)], [None], 1)[0].prompt_s,
        "streams, base model": lambda side: together(side, draw, [None] * asked.streams, asked.stream_tokens),
        "streams, 4 LoRA": lambda side: together(side, draw, mixed, asked.stream_tokens),
    }
    rates: dict[str, dict[str, list[float]]] = {name: {piece: [] for piece in work} for name in sides}
    used: dict[str, dict[str, list[float]]] = {name: {piece: [] for piece in work} for name in sides}
    for number in range(asked.rounds + 1):
        for piece, run in work.items():
            for name, side in sides.items():
                before = processor_s(side)
                rate = run(side)
                if number:
                    rates[name][piece].append(rate)
                    used[name][piece].append(processor_s(side) - before)
        print(f"round {number} of {asked.rounds}", file=sys.stderr, flush=True)
    return medians(rates, 1), medians(used, 2)


def medians(found: dict[str, dict[str, list[float]]], digits: int) -> Figures:
    """Return the median of each side and piece of work."""
    return {name: {piece: round(median(r), digits) for piece, r in own.items()} for name, own in found.items()}


def processor_s(side: Side) -> float:
    """Return the processor time that a side's processes have taken, which a busy machine distorts least."""
    times = [psutil.Process(pid).cpu_times() for pid in side.pids]
    return float(sum(one.user + one.system for one in times))


def decoding(side: Side, draw: random.Random, adapter: str | None, tokens: int) -> float:
    """Return tokens per second after the first, behind a prompt of 64."""
    return (tokens - 1) / side.answer([prompt(draw, 64)], [adapter], tokens)[0].decode_s


def together(side: Side, draw: random.Random, adapters: list[str | None], tokens: int) -> float:
    """Return tokens per second of answers to prompts of 64 that come at once, the prompts' time included."""
    prompts = [prompt(draw, 64) for _ in adapters]
    began = time.perf_counter()
    side.answer(prompts, adapters, tokens)
    return len(adapters) * tokens / (time.perf_counter() - began)


def prompt(draw: random.Random, length: int) -> list[int]:
    """Return token ids that no cache has seen."""
    return [draw.randrange(100, 40_000) for _ in range(length)]


@final
class LlamaServer:
    """llama.cpp's servers with a slot for each stream: one without adapters and one with them.

    A server with adapters takes twice as long for a token when none is asked for as when one is.
    """

    def __init__(self, stack: ExitStack, command: str, folder: Path, threads: int, slots: int) -> None:
        source = find_model(MODEL)
        options: dict[str, object] = {
            "--model": Path(source.location) / str(source.gguf_file),
            "--parallel": slots,
            "--ctx-size": slots * 1024,
            "--threads": threads,
            "--host": "127.0.0.1",
        }
        given = [str(word) for option in options.items() for word in option]
        adapters = ",".join(str(folder / f"{name}.gguf") for name in LORAS)
        self.pids: list[int] = []
        self._urls: list[str] = []
        for more in ([], ["--lora", adapters, "--lora-init-without-apply"]):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            process = subprocess.Popen(
                [*shlex.split(command), *given, "--port", str(port), *more],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            self.pids.append(process.pid)
            self._urls.append(f"http://127.0.0.1:{port}")
            while not self._ready():
                assert process.poll() is None, command
                time.sleep(0.2)
        self._pool = ThreadPoolExecutor(slots)

    def answer(self, prompts: list[list[int]], adapters: list[str | None], tokens: int) -> list[Answered]:
        """Send a request for each prompt."""
        return list(self._pool.map(lambda ids, adapter: self._complete(ids, adapter, tokens), prompts, adapters))

    def _complete(self, ids: list[int], adapter: str | None, tokens: int) -> Answered:
        body: dict[str, object] = {
            "prompt": ids,
            "n_predict": tokens,
            "ignore_eos": True,
            "cache_prompt": False,
            "temperature": 0,
        }
        if adapter is not None:
            body["lora"] = [{"id": LORAS.index(adapter), "scale": 1}]
        request = urllib.request.Request(
            f"{self._urls[adapter is not None]}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            timings = json.load(reply)["timings"]
        assert (timings["prompt_n"], timings["predicted_n"]) == (len(ids), tokens), timings
        return Answered(timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3)

    def _ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self._urls[-1]}/health").close()
        except OSError:
            return False
        return True


@final
class Tunedeck:
    """This engine in a process of its own, asked in lines of JSON."""

    def __init__(self, stack: ExitStack, precision: str, folder: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", precision, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        stack.callback(self._process.wait)
        stack.callback(self._process.terminate)
        self.pids = [self._process.pid]

    def answer(self, prompts: list[list[int]], adapters: list[str | None], tokens: int) -> list[Answered]:
        """Send all prompts in one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([prompts, adapters, tokens]) + "\n")
        self._process.stdin.flush()
        return [Answered(*times) for times in json.loads(self._process.stdout.readline())]


def serve_lines(precision: str, folder: str) -> None:
    """Answer lines of JSON until there are no more."""
    scheme: Any = None if precision == "bfloat16" else precision
    deck = td.Deck.load(MODEL, td.Generate(), dtype="bfloat16", quantize=scheme)
    deck.model.generation_config.eos_token_id = None  # every answer has all its tokens
    deck.tokenizer.eos_token = None
    with open_engine(deck, folder) as engine:
        for line in sys.stdin:
            prompts, adapters, tokens = json.loads(line)
            requests = [
                Request(adapter, Sequence(ids, td.Sampling(max_tokens=tokens)), 600)
                for ids, adapter in zip(prompts, adapters, strict=True)
            ]
            for request in requests:
                engine.submit(request)
            print(json.dumps([times(request) for request in requests]), flush=True)


def times(request: Request[Sequence, Sequence]) -> tuple[float, float]:
    """Wait for an answer and return its seconds until the first token and from there to the last."""
    request.done.result()
    assert request.first_token_s is not None
    assert request.ended_s is not None
    return request.first_token_s - request.arrived_s, request.ended_s - request.first_token_s


def save_loras(folder: Path) -> None:
    """Save LoRA adapters of rank 8 on all linear layers that change the answers, also as llama.cpp reads them."""
    deck = td.Deck.load(MODEL, td.Generate())
    for seed, name in enumerate(LORAS):
        deck.add(name, td.LoraConfig(target_modules="all-linear"), seed=seed)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for placement in deck.adapter(name).built.placements.values():
                placement.layer.lora_B.normal_(std=0.01, generator=draw)
        deck.save(name, folder / name)
        deck.remove(name)
        save_gguf_lora(open_adapter(folder / name), folder / f"{name}.gguf")


if __name__ == "__main__":
    main()
