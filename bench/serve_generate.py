"""Continuous batching: 16 streams beside one, mixed adapters beside the bare base, transformers' own `generate` and
`generate_batch`; a shared system prompt computed anew and from the prompt cache.

The sides take turns in one process; medians and ratios are printed and written to bench/results/serve_generate.json, or
serve_generate_DTYPE.json with --dtype.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median, quantiles

import torch
import transformers

import tunedeck as td
from tunedeck.core.helper_threads import end_helper_threads
from tunedeck.core.measurement import this_machine
from tunedeck.generation.prompt_cache import PromptCache
from tunedeck.serving import Request, Sequence, open_engine
from tunedeck.serving.backends.generate import GenerateBackend

RESULTS = Path(__file__).parent / "results"
KINDS = {
    "lora": td.LoraConfig(r=8),
    "bottleneck": td.BottleneckConfig("seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=16),
}
QUESTION = "Explain in plain words, for somebody who has never heard of it, what number {number} has to do with a tort."


RULES = "You answer the customers of a small shop for bicycles. Be polite and short, and promise no price. " * 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled:smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    deck = td.Deck.load(arguments.model, td.Generate(), dtype=arguments.dtype)
    deck.model.generation_config.eos_token_id = None  # every answer has all its tokens
    deck.tokenizer.eos_token = None
    bare = copy.deepcopy(deck.model)
    prompts = [[{"role": "user", "content": QUESTION.format(number=n)}] for n in range(arguments.streams)]
    with tempfile.TemporaryDirectory() as folder:
        names = save_adapters(deck, Path(folder), arguments.streams)
        engine = open_engine(deck, folder)
        worker, step = engine._worker, engine._worker.step
        worker.step = lambda: step() or end_helper_threads() or False  # type: ignore[method-assign, func-returns-value]
        backend = engine._backend
        assert isinstance(backend, GenerateBackend)
        prompt_cache, numbers = backend._prompts, count(1)
        ttft: dict[str, list[list[float]]] = {}
        tpot: dict[str, list[list[float]]] = {}
        sampling = td.Sampling(max_tokens=arguments.tokens)

        def streams(name: str, adapters: list[str | None], system: str = "", cached: bool = False) -> Callable[[], int]:
            def run() -> int:
                backend._prompts = prompt_cache if cached else PromptCache(0)
                rules = [{"role": "system", "content": system}] if system else []
                asked = [[*rules, {"role": "user", "content": QUESTION.format(number=next(numbers))}] for _ in adapters]
                requests = [Request(a, Sequence(p, sampling), 600) for a, p in zip(adapters, asked, strict=True)]
                ended: dict[Request, float] = {}
                for request in requests:
                    request.done.add_done_callback(lambda _, one=request: ended.update({one: time.monotonic()}))
                    engine.submit(request)
                tokens = sum(request.done.result().completion_tokens for request in requests)
                begun = [request.first_token_s or 0.0 for request in requests]
                ttft.setdefault(name, []).append([at - r.arrived_s for at, r in zip(begun, requests, strict=True)])
                steps = arguments.tokens - 1
                tpot.setdefault(name, []).append(
                    [(ended[r] - at) / steps for at, r in zip(begun, requests, strict=True)]
                )
                return tokens

            return run

        row: dict[str, object] = {}
        sides: dict[str, Callable[[], int]] = {
            "one stream": streams("one", [None]),
            "streams, bare base": streams("bare", [None] * arguments.streams),
            "streams, mixed adapters": streams("mixed", [*names]),
            "streams, shared prompt computed anew": streams("shared, anew", [*names], RULES),
            "streams, shared prompt from the cache": streams("shared, cached", [*names], RULES, cached=True),
            "transformers generate": plain_generate(deck, prompts, arguments.tokens),
        }
        batching = continuous(bare, [deck.task.prompt_ids(deck, prompt) for prompt in prompts], arguments.tokens)  # type: ignore[attr-defined]
        try:
            batching()
            sides["transformers generate_batch"] = batching
        except Exception as error:
            row["transformers generate_batch fails"] = f"{type(error).__name__}: {error}"
        rates = take_turns(sides, arguments.rounds)
        engine.close()
    row |= {f"{name}, tokens/s": round(rate, 1) for name, rate in rates.items()}
    row |= {
        "streams / one": round(rates["streams, bare base"] / rates["one stream"], 2),
        "mixed / bare base": round(rates["streams, mixed adapters"] / rates["streams, bare base"], 2),
    }
    for name in ("transformers generate", "transformers generate_batch"):
        if name in rates:
            row[f"streams / {name}"] = round(rates["streams, bare base"] / rates[name], 2)
    for name in ("mixed", "shared, anew", "shared, cached"):
        row[f"{name}: ttft ms, p50 p95"] = p50_p95(ttft[name][1:])
    row["mixed, adapters not in memory: ttft ms, p50 p95"] = p50_p95(ttft["mixed"][:1])
    row["mixed: tpot ms, p50 p95"] = p50_p95(tpot["mixed"][1:])
    machine = this_machine()
    print(json.dumps(row, indent=2))
    RESULTS.mkdir(exist_ok=True)
    file = "serve_generate.json" if arguments.dtype == "auto" else f"serve_generate_{arguments.dtype}.json"
    settings = {"cpu": machine.cpu, "cores": machine.cpu_cores, **vars(arguments)}
    (RESULTS / file).write_text(json.dumps({**settings, **row}, indent=2) + "\n", encoding="utf-8")


def p50_p95(rounds: list[list[float]]) -> list[float]:
    """Return milliseconds from seconds."""
    cuts = quantiles([seconds for values in rounds for seconds in values], n=20)
    return [round(1000 * cuts[9], 1), round(1000 * cuts[18], 1)]


def save_adapters(deck: td.Deck, root: Path, count: int) -> list[str]:
    """Folders of three kinds in turn; removed from the deck again."""
    names = []
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        name = f"{kind}-{number}"
        deck.add(name, KINDS[kind], seed=number)
        deck.save(name, root / name)
        deck.remove(name)
        names.append(name)
    return names


def plain_generate(deck: td.Deck, prompts: list[list[dict[str, str]]], tokens: int) -> Callable[[], int]:
    """transformers' own static batch of the same prompts."""
    rows = [deck.task.prompt_ids(deck, prompt) for prompt in prompts]  # type: ignore[attr-defined]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])

    def run() -> int:
        with torch.inference_mode(), deck.lock:
            deck.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
            )
        return len(rows) * tokens

    return run


def continuous(model: transformers.PreTrainedModel, rows: list[list[int]], tokens: int) -> Callable[[], int]:
    """transformers' own continuous batching of the same prompts."""
    greedy = transformers.GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)

    def run() -> int:
        answers = model.generate_batch(rows, generation_config=greedy, persistent_manager=True)
        failed = [answer.error for answer in answers.values() if answer.error]
        said = sum(len(answer.generated_tokens) for answer in answers.values())
        if failed or said != len(rows) * tokens:
            raise RuntimeError(failed[0] if failed else f"{said} tokens instead of {len(rows) * tokens}")
        return said

    return run


def take_turns(sides: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median tokens per second of each side, all of them in every round; the first round warms up.

    Each side runs as it would in a process of its own: without the helper threads of the others (`end_helper_threads`).
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, call in sides.items():
            began = time.perf_counter()
            tokens = call()
            if number:
                rates[name].append(tokens / (time.perf_counter() - began))
            end_helper_threads()
    return {name: median(values) for name, values in rates.items()}


if __name__ == "__main__":
    main()
