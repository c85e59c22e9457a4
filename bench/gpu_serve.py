"""Serving on a GPU: 32 adapters of three kinds in one batch beside the base model and beside peft's `adapter_names`.
Random weights.

    python bench/gpu_serve.py                      # BERT-base and a Llama of 1.2 billion parameters, bfloat16
    python bench/gpu_serve.py --sizes tiny --rounds 1 --rows 8 --adapters 4

Classification: one batch of token ids, from Python lists to logits on the CPU. Generation: as many prompts as adapters
through the serving engine, all arriving at once, greedy, beside `generate` of transformers and of peft. The sides take
turns in one process; `launches` are the kernels that one batch, or one step of decoding, asks of the GPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import peft
import torch
import transformers
from gpu import SHAPES, random_base
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model

import tunedeck as td
from tunedeck.methods.base import MethodConfig
from tunedeck.serving import GenerationLimits, Request, Sequence, open_engine
from tunedeck.tasks.text_head import logits_of_ids

RESULTS = Path(__file__).parent / "results" / "gpu_serve.json"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BERT: dict[str, Any] = {
    "bert-base": {},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
}
LLAMA: dict[str, Any] = {
    "llama-1b": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
    "tiny": SHAPES["tiny"],
}
TARGETS = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj")}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["bert-base", "llama-1b"], choices=[*BERT, *LLAMA])
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 256], help="rows of a classification batch")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--generate-rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    result: Row = {
        "gpu": torch.cuda.get_device_name() if DEVICE.type == "cuda" else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "dtype": "bfloat16",
        "classify": [],
        "generate": [],
    }

    def keep(part: str, row: Row) -> None:
        print(json.dumps(row, indent=1), flush=True)
        result[part].append(row)
        if DEVICE.type == "cuda":
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for size in options.sizes:
        if size in BERT:
            for rows in options.rows:
                for length in options.lengths:
                    keep("classify", classify(size, rows, length, options.adapters, options.rounds))
        if size in LLAMA:
            keep("generate", generate(size, options.adapters, options.tokens, options.generate_rounds))


def kinds(family: str) -> dict[str, MethodConfig]:
    """One adapter of each kind."""
    return {
        "lora": td.LoraConfig(r=8, target_modules=TARGETS[family]),
        "bottleneck": td.BottleneckConfig("seq_bn"),
        "prompt": td.PromptTuningConfig(num_virtual_tokens=8),
    }


def add(deck: td.Deck, family: str, count: int) -> tuple[list[str], list[str]]:
    """Names of `count` LoRA adapters, and of `count` adapters of three kinds in turn."""
    lora, mixed = [f"l{number}" for number in range(count)], []
    for number, name in enumerate(lora):
        deck.add(name, kinds(family)["lora"], seed=number)
    for number in range(count):
        kind = list(kinds(family))[number % 3]
        mixed.append(f"l{number}" if kind == "lora" else f"{kind}{number}")
        if kind != "lora":
            deck.add(mixed[-1], kinds(family)[kind], seed=number)
    return lora, mixed


def classify(size: str, rows: int, length: int, adapters: int, rounds: int) -> Row:
    """Milliseconds of one batch; the rows of an adapter stand apart, as requests come."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**BERT[size])
    with tempfile.TemporaryDirectory() as folder:
        plain = transformers.AutoModelForSequenceClassification.from_config(config).to(torch.bfloat16)
        plain.save_pretrained(folder)
        deck = td.Deck.load(
            folder, td.Classify(labels=("a", "b"), pooling="model"), dtype="bfloat16", device=DEVICE.type
        )
    plain.eval().to(DEVICE)
    own = copy.deepcopy(plain)  # peft changes the model that it is given
    lora, mixed = add(deck, "bert", adapters)
    for name in deck.adapters:
        deck.adapter(name).freeze_for_inference()
    tuned = by_peft(own, "bert", lora, "SEQ_CLS")
    ids = torch.randint(100, 30000, (rows, length))
    tokens, there, mask = ids.tolist(), ids.to(DEVICE), torch.ones_like(ids).to(DEVICE)
    many = rows // adapters
    sides: dict[str, Callable[[], object]] = {
        "base model": lambda: logits_of_ids(deck, tokens, [None] * rows),
        "32 LoRA": lambda: logits_of_ids(deck, tokens, lora * many),
        "three kinds mixed": lambda: logits_of_ids(deck, tokens, mixed * many),
        "transformers": lambda: plain(input_ids=there, attention_mask=mask).logits.float().cpu(),
        "peft adapter_names, 32 LoRA": lambda: (
            tuned(input_ids=there, attention_mask=mask, adapter_names=lora * many).logits.float().cpu()
        ),
    }
    with torch.inference_mode():
        seconds, again = turns(sides, rounds), turns(sides, rounds, twice=True)
        launched = {name: (launches(side), launches(side))[1] for name, side in sides.items()}
    return {
        "size": size,
        "rows": rows,
        "length": length,
        "adapters": adapters,
        "ms, another mix than before": medians(seconds),
        "ms, the same mix again": medians(again),
        "launches, the same mix again": launched,
    }


def by_peft(model: Any, family: str, names: list[str], task: str) -> Any:
    """The model with LoRA adapters of these names, in its own precision."""
    config = partial(PeftLoraConfig, r=8, target_modules=list(TARGETS[family]), task_type=task)
    tuned = get_peft_model(model, config(), names[0])
    for name in names[1:]:
        tuned.add_adapter(name, config())
    return tuned.to(DEVICE, torch.bfloat16).eval()


def generate(size: str, streams: int, tokens: int, rounds: int) -> Row:
    """Tokens per second of answers to `streams` prompts of 64 tokens."""
    deck = td.Deck(random_base(LLAMA[size], False, DEVICE), td.Generate())
    deck.model.generation_config.eos_token_id = None  # every answer has all its tokens
    deck.tokenizer.eos_token = None
    chooser = random.Random(0)
    rows = [[chooser.randrange(4, LLAMA[size]["vocab_size"]) for _ in range(64)] for _ in range(streams)]
    with tempfile.TemporaryDirectory() as folder:
        lora, mixed = add(deck, "llama", streams)
        for name in dict.fromkeys((*lora, *mixed)):
            deck.save(name, Path(folder) / name)
            deck.remove(name)
        engine = open_engine(deck, folder, adapter_bytes=1 << 32, generation=GenerationLimits(rows=streams))

        def ask(adapters: Iterable[str | None]) -> int:
            asked = [Sequence(ids, td.Sampling(max_tokens=tokens)) for ids in rows]
            requests = [Request(name, one, 600) for name, one in zip(adapters, asked, strict=False)]
            for request in requests:
                engine.submit(request)
            return sum(request.done.result().completion_tokens for request in requests)

        def ask_transformers(model: Any, **more: Any) -> int:
            ids = torch.tensor(rows, device=DEVICE)
            greedy = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
            with torch.inference_mode(), deck.lock:
                answers = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy, **more)
            return int(answers[:, 64:].numel())

        tuned = by_peft(random_base(LLAMA[size], False, DEVICE).model, "llama", lora, "CAUSAL_LM")
        sides: dict[str, Callable[[], int]] = {
            "one stream, base model": partial(ask, [None]),
            "one stream, LoRA": partial(ask, lora[:1]),
            "streams, base model": partial(ask, [None] * streams),
            "streams, 32 LoRA": partial(ask, lora),
            "streams, three kinds mixed": partial(ask, mixed),
            "transformers generate": partial(ask_transformers, deck.model),
            "peft generate, adapter_names, 32 LoRA": partial(ask_transformers, tuned, adapter_names=lora),
        }
        counted = {}
        for name, side in sides.items():
            began = time.perf_counter()
            counted[name] = side()
            print(f"first {name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        seconds = turns(sides, rounds)
        engine.close()
        steps = launches_of_steps(
            deck, Path(folder), rows, {"base model": [None] * streams, "32 LoRA": lora, "three kinds mixed": mixed}
        )
    rates = {name: round(counted[name] / median(taken), 1) for name, taken in seconds.items()}
    return {
        "size": size,
        "streams": streams,
        "prompt": 64,
        "tokens": tokens,
        "tokens_per_s": rates,
        "mixed / base model": round(rates["streams, three kinds mixed"] / rates["streams, base model"], 2),
        "streams / one": round(rates["streams, base model"] / rates["one stream, base model"], 2),
        "launches_per_step": steps["launches"],
        "step_ms": steps["ms"],
    }


def launches_of_steps(deck: td.Deck, folder: Path, rows: list[list[int]], sides: dict[str, list[Any]]) -> Row:
    """Kernels and milliseconds of one step of decoding, without the engine."""
    for names in sides.values():
        for name in names:
            if name is not None and name not in deck.adapters:
                deck.load_adapter(folder / name)
                deck.adapter(name).freeze_for_inference()
    prompts = [" ".join(f"w{number}" for number in ids) for ids in rows]

    def ask(names: list[Any], tokens: int) -> object:
        return deck.generate(prompts, names, td.Sampling(max_tokens=tokens))

    found: Row = {"launches": {}, "ms": {}}
    for name, names in sides.items():
        few, more = (launches(partial(ask, names, tokens)) for tokens in (2, 10))
        found["launches"][name] = round((more - few) / 8)
        short, long = (median(turns({"": partial(ask, names, tokens)}, 3)[""]) for tokens in (2, 34))
        found["ms"][name] = round(1000 * (long - short) / 32, 2)
    return found


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """In milliseconds."""
    return {name: round(1000 * median(taken), 2) for name, taken in seconds.items()}


def turns(sides: dict[str, Callable[[], object]], rounds: int, *, twice: bool = False) -> dict[str, list[float]]:
    """Seconds of each side, all of them in every round, after one that does not count; with `twice` of its second call
    in a row.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            if twice:
                side()
            synchronize()
            began = time.perf_counter()
            side()
            synchronize()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def launches(side: Callable[[], object]) -> int:
    """Kernels that a call asks of the GPU; 0 on a CPU."""
    if DEVICE.type != "cuda":
        return 0
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ) as profile:
        side()
        synchronize()
    return sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)


def synchronize() -> None:
    """Wait until the GPU has done all it was asked."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
