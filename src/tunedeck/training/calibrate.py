"""Real steps of a real model and method at a few batch sizes and lengths, for the planner to predict from.

`python -m tunedeck.training.calibrate '{"model": ..., "method": {...}}'` measures in a separate process, so that the
memory it reads is that of a training run and nothing else, and prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from tunedeck.core.errors import TunedeckError
from tunedeck.core.measurement import PRODUCT_S, Measurement, fastest_s
from tunedeck.core.native import give_back_freed_memory
from tunedeck.deck.deck import Deck
from tunedeck.methods.registry import config_of
from tunedeck.models.quantize import parameter_count
from tunedeck.tasks.base import Calibration
from tunedeck.tasks.registry import first_kind_with, view_of
from tunedeck.training.config import TrainingSettings
from tunedeck.training.run import train

SMALL = 60e6  # parameters of a base whose steps are short enough for the longer ladder
LADDERS = {
    True: ((8, 16), (32, 16), (16, 64), (32, 48), (12, 128)),
    False: ((4, 16), (8, 32), (4, 96), (16, 48), (8, 128)),
}
"""(rows, tokens) of the points, in the order of their memory, which a process never quite gives back. None has more
than CPU_POSITIONS: a larger batch is worked through in pieces.
"""
STEPS, PASSES = {True: 5, False: 3}, {True: 3, False: 2}  # short steps vary more


def measure(
    reference: str, method: dict[str, Any], generate: bool, points: Sequence[tuple[int, int]] | None = None
) -> dict[str, Any]:
    """Return rates of this machine, and (rows, tokens, seconds of a step, peak bytes of the process) at each point.

    `points` are (rows, tokens); by default a ladder that suits the model's size.
    """
    values = dict(method)
    config = config_of(str(values.pop("kind")), values)
    calibration = view_of(first_kind_with("text" if generate else "labels")).calibration
    assert calibration is not None
    deck = Deck.load(reference, calibration.task)
    deck.add("calibration", config)
    dtype = deck.base.dtype
    base_parameters = parameter_count(deck.model)
    small = base_parameters < SMALL
    ladder = points or LADDERS[small]
    passes = [
        [_point(deck, calibration, rows, tokens, STEPS[small]) for rows, tokens in ladder] for _ in range(PASSES[small])
    ]
    measured = [
        [rows, taken[0].largest_batch_positions // rows, min(one.step_s for one in taken), taken[0].peak_memory_bytes]
        for (rows, _), taken in zip(ladder, zip(*passes, strict=True), strict=True)
    ]
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "products_flops_per_s": products_flops_per_s(dtype),
        "copy_bytes_per_s": _copy_bytes_per_s(),
        "points": measured,
    }


def _point(deck: Deck, calibration: Calibration, rows: int, tokens: int, steps: int) -> Measurement:
    """Time a few real steps; repeated in every pass, because other programs can only make them slower."""
    gc.collect()
    give_back_freed_memory()  # what the point before has left behind must not count as this one's
    settings = TrainingSettings(max_steps=steps, batch_size=rows, schedule="constant", early_stopping_patience=None)
    dataset = calibration.examples(rows * steps, tokens)
    run = train(deck, "calibration", dataset, settings=settings, progress=False)
    if run.stopped != "finished":  # by a signal, which ends the rest as well
        raise KeyboardInterrupt
    return run.measurement


def products_flops_per_s(dtype: torch.dtype, shape: tuple[int, int, int] = (1024, 1024, 1024)) -> float:
    """Return this machine's rate of a product (rows, inner) · (inner, columns) in a precision; takes less than a
    second.
    """
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    return 2 * rows * inner * columns / fastest_s(lambda: left @ right, least_s=PRODUCT_S)


def _copy_bytes_per_s(size: int = 64 * 2**20) -> float:
    """Return rate of memory, reading and writing counted, for a block that no cache holds."""
    source, target = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    return 2 * size / fastest_s(lambda: target.copy_(source))


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    try:
        print(
            json.dumps(
                measure(request["model"], request["method"], request.get("generate", False), request.get("points"))
            )
        )
    except TunedeckError as error:
        print(json.dumps({"error": str(error)}))
