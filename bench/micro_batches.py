"""A training step as it is beside the same step with larger pieces and with transformers' attention.

LoRA on Chinese reviews of up to 128 tokens with the multilingual base, batches of 32 from the shortest to the longest;
the sides take turns. Processor seconds, and what torch keeps for the backward pass of the largest piece.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

import torch
from training import RESULTS

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.core.run_length import CPU_POSITIONS
from tunedeck.data.batches import length_batches
from tunedeck.data.settings import DataSettings
from tunedeck.deck.patches.base import Unchanged
from tunedeck.deck.patches.training_attention import training_attention

SIDES = {
    "as it is": (True, CPU_POSITIONS),
    "whole batches": (True, 10**9),
    "transformers' attention": (False, CPU_POSITIONS),
    "both": (False, 10**9),
    "pieces of 1,024": (True, 1024),
}
"""Whether attention is ours, and the positions of a piece."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    options = parser.parse_args()
    data = td.Classify().read(DataSettings(train="bundled:reviews-zh", train_size=4000, eval_size=32))
    deck = td.Deck.load("bundled:multilingual-e5-small", td.Classify(labels=data.labels, max_length=128))
    deck.add("a", td.LoraConfig())
    adapter = deck.adapter("a").train()
    objective = td.Classify(labels=data.labels, max_length=128).objective(deck, "a", data)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4, fused=True)

    def attention(side: str) -> AbstractContextManager[None]:
        return (training_attention(deck.base) if SIDES[side][0] else Unchanged()).on(deck.base)

    def pieces_of(side: str, rows: Sequence[int]) -> list[Sequence[int]]:
        pieces = math.ceil(len(rows) * max(objective.lengths[row] for row in rows) / SIDES[side][1])
        return [rows[piece::pieces] for piece in range(pieces)]

    def step(side: str, rows: Sequence[int]) -> float:
        pieces, began = pieces_of(side, rows), time.process_time()
        with attention(side):
            for piece in pieces:
                (objective.loss(piece)[0] * len(piece) / len(rows)).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    batches = sorted(length_batches(objective.lengths, 32, 0), key=lambda rows: max(objective.lengths[r] for r in rows))
    chosen = [batches[int((k + 0.5) * len(batches) / options.batches)] for k in range(options.batches)]
    found = []
    for rows in chosen:
        seconds: dict[str, list[float]] = {side: [] for side in options.sides}
        for number in range(options.rounds + 1):
            for side in options.sides:
                taken = step(side, rows)
                if number:
                    seconds[side].append(taken)
        medians = {side: round(median(values), 3) for side, values in seconds.items()}
        found.append({"tokens": max(objective.lengths[row] for row in rows), "seconds": medians})
        print(found[-1], flush=True)
    kept = {}
    for side in options.sides:
        piece = pieces_of(side, chosen[-1])[0]
        with attention(side):
            kept[side] = kept_bytes(partial(objective.loss, piece), [*deck.model.parameters(), *adapter.parameters()])
    total = {side: round(sum(row["seconds"][side] for row in found), 2) for side in options.sides}
    result = {"cpu": this_machine().cpu, "threads": torch.get_num_threads(), "steps": found, "all": total, "kept": kept}
    print(json.dumps({"all": total, "kept": kept}))
    (RESULTS / "micro_batches.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def kept_bytes(loss: Callable[[], object], weights: Iterable[torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, besides the weights."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss()
    del result
    return sum(kept.values())


if __name__ == "__main__":
    main()
