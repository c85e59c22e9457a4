"""An hour of churn: thousands of adapters registered, few of them in memory, requests, unloads and reloads all the
while.

    python bench/serve_churn.py [--seconds 3600] [--registered 10000]

Every answer is compared with that of its adapter alone. Printed and written to bench/results/serve_churn.json: the
memory of the process at ten points in time. Seconds are processor time, so that a pause does not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.serving import Request, open_engine
from tunedeck.serving.factory import Silent

RESULTS = Path(__file__).parent / "results" / "serve_churn.json"
KINDS = (td.LoraConfig(r=8), td.BottleneckConfig("seq_bn"), td.PromptTuningConfig(num_virtual_tokens=8))
TEXTS = ("a text of some words", "the flight was late again", "and a longer one that goes on for quite a while, " * 3)
DISTINCT = 12
POINTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--registered", type=int, default=10_000)
    parser.add_argument("--bound", type=int, default=20_000_000, help="bytes of adapters in memory")
    arguments = parser.parse_args()
    deck = td.Deck.load("bundled:all-minilm-l6-v2", td.Classify(labels=("a", "b", "c")), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        expected = register(deck, Path(folder), arguments.registered)
        row = churn(deck, Path(folder), expected, arguments)
    print(json.dumps(row, indent=2))
    RESULTS.write_text(json.dumps({"cpu": this_machine().cpu, **vars(arguments), **row}, indent=2) + "\n", "utf-8")


def register(deck: td.Deck, root: Path, many: int) -> list[list[float]]:
    """Folders a0, a1, ...: links to a few distinct adapters in turn; returns each one's probabilities for each text."""
    expected = []
    for number in range(DISTINCT):
        deck.add("one", KINDS[number % len(KINDS)], seed=number)
        deck.save("one", root / f"a{number}")
        expected.append([said.probabilities["a"] for said in deck.predict(list(TEXTS), "one")])
        deck.remove("one")
    for number in range(DISTINCT, many):
        (root / f"a{number}").mkdir()
        for file in (root / f"a{number % DISTINCT}").iterdir():
            os.link(file, root / f"a{number}" / file.name)
    return expected


def churn(deck: td.Deck, root: Path, expected: list[list[float]], arguments: argparse.Namespace) -> dict[str, object]:
    """Ask, mostly for a few adapters and now and then for any; unload and load one now and then."""
    counts: Counter[str] = Counter()
    listener = Silent()
    listener.on_store_event = lambda event, _: counts.update([event])  # type: ignore[method-assign]
    engine = open_engine(deck, root, adapter_bytes=arguments.bound, listener=listener)
    store = engine.store
    names, chance, process = store.names(), random.Random(0), psutil.Process()
    memory: list[float] = []
    most, began = 0, time.process_time()
    while len(memory) < POINTS:
        asked = [
            (chance.choice(names[:20] if chance.random() < 0.5 else names), chance.randrange(len(TEXTS)))
            for _ in range(32)
        ]
        requests = [Request(name, TEXTS[text], timeout_s=86_400) for name, text in asked]  # the process may be paused
        for request in requests:
            engine.submit(request)
        for (name, text), request in zip(asked, requests, strict=True):
            said = request.done.result().probabilities["a"]
            counts["answers"] += 1
            counts["wrong"] += abs(said - expected[int(name[1:]) % DISTINCT][text]) > 1e-4
        changed = chance.choice(names)
        store.unload(changed)
        store.load(changed).result().close()
        most = max(most, store.bytes)
        if time.process_time() - began > arguments.seconds * (len(memory) + 1) / POINTS:
            gc.collect()
            memory.append(round(process.memory_info().rss / 1e6, 1))
            print(f"{len(memory)}/{POINTS}: {memory[-1]} MB, {dict(counts)}", flush=True)
    engine.close()
    return {"memory, MB": memory, "most adapter bytes": most, "wrong": counts.pop("wrong"), **counts}


if __name__ == "__main__":
    main()
