"""The adapter store: selecting and loading beside many loaded, their memory, and whether a batch is held up.

Printed and written to bench/results/serve_store.json. peft's load_adapter and set_adapter on the same base stand beside
it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import psutil
import torch
import transformers
from peft import PeftModel

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.core.native import give_back_freed_memory, keep_freed_memory
from tunedeck.serving.backends.deck import DeckBackend, batch_backend
from tunedeck.serving.store import AdapterStore

RESULTS = Path(__file__).parent / "results" / "serve_store.json"
SAVED = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled:all-minilm-l6-v2")
    parser.add_argument("--loaded", type=int, nargs="+", default=[1, 64, 1000])
    parser.add_argument("--rank", type=int, default=8)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    deck = td.Deck.load(arguments.model, td.Classify(labels=("a", "b", "c")), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        most = max(arguments.loaded) + 2 * SAVED
        deck.add("one", td.LoraConfig(r=arguments.rank))
        deck.save("one", root / "a0")
        deck.remove("one")
        for number in range(1, most):
            shutil.copytree(root / "a0", root / f"a{number}")
        row: dict[str, object] = {}
        backend = batch_backend(deck)
        store = AdapterStore(root, backend, 1 << 40)
        for count in arguments.loaded:
            for number in range(len(store.cached()), count):
                store.acquire(f"a{number}").result().close()
            row[f"select, ms, {count} loaded"] = milliseconds(lambda _: store.acquire("a0").result().close(), SAVED)
            row[f"load, ms, {count} loaded"] = milliseconds(
                lambda n, count=count: store.acquire(f"a{count + n}").result().close(), SAVED
            )
            for number in range(count, count + SAVED):
                store.unload(f"a{number}")
                store.load(f"a{number}").result().close()  # known again
        row |= held_up(deck, backend, store)
        bytes_sum = store.bytes
        store.close()
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            row |= alone.apply(memory, (arguments.model, root, max(arguments.loaded)))
        row |= peft_side(deck, root, [count for count in arguments.loaded if count <= 64])
        row["bytes of all that was loaded"] = bytes_sum
    machine = this_machine()
    print(json.dumps(row, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    settings = {"cpu": machine.cpu, "cores": machine.cpu_cores, **vars(arguments)}
    RESULTS.write_text(json.dumps({**settings, **row}, indent=2) + "\n", encoding="utf-8")


def milliseconds(call: object, times: int) -> float:
    """Median milliseconds of `call(number)`."""
    taken = []
    for number in range(times):
        began = time.perf_counter()
        call(number)  # type: ignore[operator]
        taken.append(1000 * (time.perf_counter() - began))
    return round(median(taken), 3)


def held_up(deck: td.Deck, backend: DeckBackend, store: AdapterStore) -> dict[str, float]:
    """Median milliseconds of a batch of 8 texts, alone and while another thread loads adapters without a pause."""
    rows, keys = [backend.encode(["a text of some words " * 8], None)[0]] * 8, [None] * 8
    backend.answer(rows, keys)
    alone = milliseconds(lambda _: backend.answer(rows, keys), SAVED)
    stop = threading.Event()

    def loading() -> None:
        while not stop.is_set():
            store.load("a0").result().close()

    thread = threading.Thread(target=loading)
    thread.start()
    beside = milliseconds(lambda _: backend.answer(rows, keys), SAVED)
    stop.set()
    thread.join()
    return {"batch, ms, alone": alone, "batch, ms, beside loads": beside, "beside / alone": round(beside / alone, 2)}


def memory(model: str, root: Path, count: int) -> dict[str, object]:
    """What a base and `count` adapters add to the resident memory of a process, beside the bytes of their tensors."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a server does
    process = psutil.Process()

    def deck_of() -> td.Deck:
        return td.Deck.load(model, td.Classify(labels=("a", "b", "c")), dtype="float32")

    warm = deck_of()  # modules and buffers that stay whatever is loaded
    warm.load_adapter(root / "a0", "a0")
    warm.predict(["a text"], "a0")
    del warm
    give_back_freed_memory()  # what the warm-up has freed is not there for others to use
    before = process.memory_info().rss
    deck = deck_of()
    tensors = [*deck.model.parameters(), *deck.model.buffers()]
    base = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    with_base = process.memory_info().rss
    store = AdapterStore(root, batch_backend(deck), 1 << 40)
    for number in range(count):
        store.acquire(f"a{number}").result().close()
    with_all, adapters = process.memory_info().rss, store.bytes
    store.close()
    return {
        "memory, adapters loaded": count,
        "memory, bytes of the base": base,
        "memory, bytes of the adapters": adapters,
        "memory, the base adds": with_base - before,
        "memory, the adapters add": with_all - with_base,
        "memory, added / bytes": round((with_all - before) / (base + adapters), 3),
        "memory, added by adapters / their bytes": round((with_all - with_base) / adapters, 3),
    }


def peft_side(deck: td.Deck, root: Path, loaded: list[int]) -> dict[str, float]:
    """peft on a base of its own with the same folders."""
    model = transformers.AutoModelForSequenceClassification.from_config(deck.model.config)
    peft = PeftModel.from_pretrained(model, str(root / "a0"), adapter_name="a0")
    row, have = {}, 1
    for count in loaded:
        for number in range(have, count):
            peft.load_adapter(str(root / f"a{number}"), adapter_name=f"a{number}")
        have = max(have, count)
        row[f"peft set_adapter, ms, {count} loaded"] = milliseconds(lambda _: peft.set_adapter("a0"), 10)
        row[f"peft load_adapter, ms, {count} loaded"] = milliseconds(
            lambda n, have=have: peft.load_adapter(str(root / f"a{have + n}"), adapter_name=f"a{have + n}"), 3
        )
        have += 3
    return row


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
