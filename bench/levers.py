"""What makes the training step fast, one piece at a time: the engine as it is beside itself with that piece switched
off.

MiniLM on bundled tweets, SmolLM2 on medical terms; the sides take turns; medians, and the time without the piece over
the time with it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from train_generate import plain_folder
from training import RESULTS, clock

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.base import Dataset

LORA = td.LoraConfig(r=8, lora_alpha=32, target_modules=("query", "value"))
TOP = td.LoraConfig(r=8, lora_alpha=32, target_modules=("query", "value"), layers_to_transform=(4, 5))
HEAD = td.FullConfig(layers="head")


def shuffled(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Batches in random order, as a plain loop makes them."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tweets", type=int, default=960)
    parser.add_argument("--terms", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tweets = td.Classify().read(DataSettings(train="bundled:tweets", train_size=options.tweets, eval_size=32))
    terms = td.Generate().read(DataSettings(train="bundled:medical-terms:train", train_size=options.terms, eval_size=4))

    def tweet(off: str = "", config: Any = LORA, epochs: int = 1, dtype: Any = "auto") -> Callable[[], float]:
        return lambda: trained(
            tweets,
            td.Classify(labels=tweets.labels, pooling="model"),
            "bundled:all-minilm-l6-v2",
            config,
            epochs,
            off,
            dtype,
        )

    def term(off: str = "", checkpointing: bool = False) -> Callable[[], float]:
        config = td.LoraConfig(r=8, lora_alpha=32, target_modules="all-linear")
        return lambda: trained(terms, td.Generate(), str(plain_folder()), config, 1, off, "auto", checkpointing)

    groups: dict[str, dict[str, Callable[[], float]]] = {
        "classify": {
            "as it is": tweet(),
            "float32 instead of bfloat16": tweet(dtype="float32"),
            "torch's attention kernel instead of eager": tweet("attention"),
            "random batches instead of like lengths": tweet("batches"),
            "every length its own shape instead of multiples of 8": tweet("padding"),
            "the base's dropout on": tweet("dropout"),
            "all positions in the last layer instead of the first": tweet("first"),
        },
        "head alone, 3 epochs": {
            "as it is": tweet(config=HEAD, epochs=3),
            "lower layers run every time": tweet("lower", HEAD, 3),
        },
        "LoRA in the top 2 of 6 layers, 3 epochs": {
            "as it is": tweet(config=TOP, epochs=3),
            "lower layers run every time": tweet("lower", TOP, 3),
        },
        "generate": {
            "as it is": term(),
            "all logits held at once": term("logits"),
            "activation checkpointing on": term("", True),
        },
    }
    results = {name: turns(sides, options.rounds) for name, sides in groups.items()}
    machine = this_machine()
    text = json.dumps({"cpu": machine.cpu, "cores": torch.get_num_threads(), "seconds": results}, indent=1)
    (RESULTS / "levers.json").write_text(text + "\n", encoding="utf-8")


def turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each side."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            seconds = side()
            if number:
                found[name].append(seconds)
    taken = {name: median(values) for name, values in found.items()}
    first = next(iter(taken.values()))
    for name, seconds in taken.items():
        print(f"{name:60} {seconds:7.2f} s  {seconds / first:5.2f}", flush=True)
    return {name: round(seconds, 2) for name, seconds in taken.items()}


def trained(
    data: Dataset[Any],
    task: Any,
    model: str,
    config: Any,
    epochs: int,
    off: str,
    dtype: Any,
    checkpointing: bool = False,
) -> float:
    """Seconds of a training with one piece off."""
    deck = td.Deck.load(model, task, dtype=dtype)
    if off == "attention":
        deck.model.set_attn_implementation("sdpa")
    if off == "dropout":
        deck.model.train()
    if off == "first":
        deck.base = replace(deck.base, spec=replace(deck.base.spec, first_position_from=None))
    deck.add("a", config)
    patches = {
        "batches": ("tunedeck.training.trainer.length_batches", shuffled),
        "padding": ("tunedeck.tasks.text.PAD_TO", 1),
        "lower": ("tunedeck.deck.patches.lower_layers.MEMORY_SHARE", 0.0),
        "logits": ("tunedeck.tasks.generate.task.output_is_a_product", lambda *_: False),
    }
    settings = td.TrainingSettings(
        epochs=epochs,
        eval_steps=10**6,
        head_init="random",
        batch_size=8 if task.kind == "generate" else 32,
        gradient_checkpointing=checkpointing,
    )
    with ExitStack() as stack:
        if off in patches:
            stack.enter_context(patch(*patches[off]))
        return clock(lambda: td.train(deck, "a", data, settings=settings, progress=False))


if __name__ == "__main__":
    main()
