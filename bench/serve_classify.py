"""Classification: one row for each of 32 adapters of three kinds beside the bare base and beside peft; few registered
beside many.

The sides take turns in one process; medians and ratios are printed and written to bench/results/serve_classify.json.
Opponents answer 32 LoRA rows, for peft has no bottleneck adapters and no virtual tokens in such a batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import torch
import transformers
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from turns import take_turns

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.serving.engine import Engine
from tunedeck.serving.factory import open_batch_engine
from tunedeck.serving.request import Request
from tunedeck.tasks.text_head import logits_of_ids

RESULTS = Path(__file__).parent / "results" / "serve_classify.json"
TARGETS = ("query", "value")
KINDS = {
    "lora": td.LoraConfig(r=8, target_modules=TARGETS),
    "bottleneck": td.BottleneckConfig("seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=8),
}
SIZES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--registered", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = [mixed(size, n, arguments.adapters, arguments.rounds) for size in arguments.sizes for n in arguments.lengths]
    rows.append(registered(arguments.registered, arguments.rounds))
    machine = this_machine()
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"cpu": machine.cpu, "cores": machine.cpu_cores, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def random_base(size: str, folder: str) -> td.Deck:
    """A classifier of that size with random weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES[size])
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return td.Deck.load(folder, td.Classify(labels=("a", "b"), pooling="model"), dtype="float32")


def mixed(size: str, length: int, adapters: int, rounds: int) -> dict[str, object]:
    """Milliseconds for one batch of a row for each adapter; virtual tokens come on top of `length`."""
    with tempfile.TemporaryDirectory() as folder:
        deck = random_base(size, folder)
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(adapters)]
    names = [f"{kind}-{number}" for number, kind in enumerate(kinds)]
    for name, kind in zip(names, kinds, strict=True):
        deck.add(name, KINDS[kind])
    peft = get_peft_model(
        transformers.AutoModelForSequenceClassification.from_config(deck.model.config), lora(), names[0]
    )
    for name in names[1:]:
        peft.add_adapter(name, lora())
    peft.eval()
    ids = torch.randint(100, 30000, (adapters, length))
    mask, rows = torch.ones_like(ids), ids.tolist()

    def switching() -> None:
        for row, name in enumerate(names):
            peft.set_adapter(name)
            peft(input_ids=ids[row : row + 1], attention_mask=mask[row : row + 1])

    sides: dict[str, Callable[[], object]] = {
        "base": lambda: logits_of_ids(deck, rows, [None] * adapters),
        "three kinds mixed": lambda: logits_of_ids(deck, rows, names),
        "peft, adapter_names, lora only": lambda: peft(input_ids=ids, attention_mask=mask, adapter_names=names),
        "peft, switching for each row, lora only": switching,
    }
    taken = take_turns(sides, rounds)
    row: dict[str, object] = {"size": size, "length": length, "adapters": adapters}
    row |= {f"{name}, ms": round(1000 * seconds, 2) for name, seconds in taken.items()}
    row |= {f"{name} / base": round(seconds / taken["base"], 3) for name, seconds in taken.items()}
    print(json.dumps(row, indent=2))
    return row


def registered(many: int, rounds: int) -> dict[str, object]:
    """The engine's requests a second to one adapter, alone in memory and among `many`.

    Two engines, each with a base of its own, take turns; then they change places, so that neither base is always the
    one.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "adapters"
        engines = [engine_of(random_base("minilm", f"{folder}/base"), root, many) for _ in range(2)]
        ids = torch.randint(100, 30000, (32,)).tolist()

        def ask(engine: Engine) -> None:
            requests = [Request("a0", ids) for _ in range(256)]
            for request in requests:
                engine.submit(request)
            for request in requests:
                request.done.result()

        rates: dict[int, list[float]] = {1: [], many: []}
        for alone, among in (engines, engines[::-1]):
            hold(alone, 1, many)
            hold(among, many, many)
            taken = take_turns({"1": partial(ask, alone), "many": partial(ask, among)}, rounds)
            rates[1].append(256 / taken["1"])
            rates[many].append(256 / taken["many"])
        for engine in engines:
            engine.close()
    row: dict[str, object] = {f"{count} in memory, requests/s": round(mean(found), 1) for count, found in rates.items()}
    row |= {f"{many} / 1": round(mean(rates[many]) / mean(rates[1]), 3)}
    print(json.dumps(row, indent=2))
    return row


def engine_of(deck: td.Deck, root: Path, many: int) -> Engine:
    """An engine over folders a0 to a<many - 1>."""
    if not root.exists():
        deck.add("one", KINDS["lora"])
        deck.save("one", root / "a0")
        deck.remove("one")
        for number in range(1, many):
            shutil.copytree(root / "a0", root / f"a{number}")
    backend = batch_backend(deck)
    backend.encode = lambda content, key: content  # type: ignore[method-assign] - token ids, for there is no tokenizer
    return open_batch_engine(backend, root, adapter_bytes=1 << 40)


def hold(engine: Engine, count: int, many: int) -> None:
    """Have the first `count` of the adapters in memory and no others."""
    held = {resident.name for resident in engine.store.cached()}
    for number in range(many):
        if number < count:
            engine.store.load(f"a{number}").result().close()
        elif f"a{number}" in held:
            engine.store.unload(f"a{number}")


def lora() -> PeftLoraConfig:
    """peft's settings of the same adapter."""
    return PeftLoraConfig(r=8, target_modules=list(TARGETS))


if __name__ == "__main__":
    main()
