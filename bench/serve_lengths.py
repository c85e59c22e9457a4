"""Decoding of 16 sequences of equal and of unlike lengths, in this checkout and in another one.

Each checkout has a process of its own; they take turns. Printed are medians of processor time and, for the sequences
that are measured, the time to the first token and of one decoding step; the memory by which a round raised the peak;
and whether both checkouts answered alike, which in bfloat16 depends on what else is in a batch.

    python bench/serve_lengths.py --before CHECKOUT
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import zlib
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).parents[1]
SHORT, LONG = (60, 40), (1000, 1000)  # tokens of the prompt and of the answer
CHOOSER = random.Random(5)
UNLIKE = [(CHOOSER.randint(20, 400), 30) for _ in range(16)]
ROUNDS: dict[str, tuple[list[tuple[int, int]], int | None]] = {
    "16 equal": ([(45, 24)] * 16, None),
    "16 with prompts of 20 to 400 tokens": (UNLIKE, None),
    "15 short ones beside a long one": ([LONG, *[SHORT] * 15], None),
    "15 short ones beside a long one, room for 6,000": ([LONG, *[SHORT] * 15], 6000),
}
"""Sequences, and the positions that there is memory for; None for a GiB. A long sequence is not measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="another checkout")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(ROUNDS), choices=list(ROUNDS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.dtype)
        return
    sides = {"before": started(arguments.before, arguments), "now": started(HERE, arguments)}
    for name in arguments.only:
        rows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for number in range(arguments.rounds + 1):
            for side in list(sides)[:: 1 if number % 2 else -1]:
                rows[side].append(asked(sides[side], name))
        alike = {row.pop("answers") for values in rows.values() for row in values}
        print(f"{name}: answers {'alike' if len(alike) == 1 else 'differ'}")
        for side, values in rows.items():
            medians = {key: round(median(row[key] for row in values[1:]), 4) for key in values[0]}
            print(f"  {side:6} {json.dumps(medians | {'memory_mb': values[0]['memory_mb']})}", flush=True)


def started(checkout: Path, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    """Start a process that answers rounds with a checkout."""
    command = [sys.executable, __file__, "--worker", "--before", ".", "--dtype", arguments.dtype]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def asked(process: subprocess.Popen[str], name: str) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    print(name, file=process.stdin, flush=True)
    answer: dict[str, float] = json.loads(process.stdout.readline())
    return answer


def work(dtype: Any) -> None:
    """Answer the names of rounds on standard input with their measurements."""
    import tunedeck as td
    from tunedeck.serving.backends.generate import GenerateBackend

    deck = td.Deck.load("bundled:smollm2-135m-instruct", td.Generate(), dtype=dtype)
    deck.model.generation_config.eos_token_id = None  # every answer has all its tokens
    deck.tokenizer.eos_token = None
    backend = GenerateBackend(deck)
    for line in sys.stdin:
        print(json.dumps(measured(backend, *ROUNDS[line.strip()])), flush=True)


def measured(backend: Any, lengths: list[tuple[int, int]], positions: int | None) -> dict[str, float]:
    """Decode sequences that arrive at once until all but the long ones have ended."""
    import tunedeck as td
    from tunedeck.serving import Request, Sequence
    from tunedeck.serving.fair_queue import FairQueue
    from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits

    queue, chooser = FairQueue(), random.Random(0)
    worker = GenerateWorker(backend, queue, GenerationLimits())
    if positions is not None:
        limits = GenerationLimits(kv_bytes=positions * ((1 << 30) // worker.kv_positions))
        worker = GenerateWorker(backend, queue, limits)
    requests = []
    for prompt, tokens in lengths:
        ids = [chooser.randrange(1000, 40000) for _ in range(prompt)]
        request = Request(None, Sequence(ids, td.Sampling(max_tokens=tokens)), 6000)
        (request.ids,) = backend.encode([request.content], None)
        request.width = backend.width(request.ids, None)
        requests.append(request)
        queue.put(request)
    wanted = [request for request, length in zip(requests, lengths, strict=True) if length != LONG]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    memory, began, first, steps = kilobytes("VmRSS"), time.process_time(), {}, []
    while not all(request.done.done() for request in wanted):
        all_begun, before = len(first) == len(wanted), time.process_time()
        worker.step()
        if all_begun:
            steps.append(time.process_time() - before)
        for request in wanted:
            if request.first_token_s is not None:
                first.setdefault(request, time.process_time() - began)
    spent = time.process_time() - began
    worker.stop()
    return {
        "tokens_per_s": sum(len(request.content.token_ids) for request in wanted) / spent,
        "ttft_p95_s": quantiles(first.values(), n=20)[18],
        "step_s": median(steps),
        "answers": zlib.crc32(json.dumps([request.content.token_ids for request in wanted]).encode()),
        "memory_mb": (kilobytes("VmHWM") - memory) // 1000,
    }


def kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


if __name__ == "__main__":
    main()
