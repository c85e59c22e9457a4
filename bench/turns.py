"""Sides that take turns: a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side, all of them in every round; the first two warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        for number in range(rounds + 2):
            for name, call in sides.items():
                began = time.perf_counter()
                call()
                if number >= 2:
                    seconds[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in seconds.items()}
