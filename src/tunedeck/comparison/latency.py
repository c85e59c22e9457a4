"""How adapters answer on one base: alone, in a shared batch, and right after another; all of them in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from tunedeck.comparison.report.interval import of_median
from tunedeck.comparison.report.values import Serving

if TYPE_CHECKING:
    import torch

    from tunedeck.deck.deck import Deck

K = TypeVar("K")

BATCH = 16
ROUNDS, LEAST_ROUNDS, WARM_UP = 15, 3, 2
TIME_LIMIT_S = 20.0
"""Rounds end here once LEAST_ROUNDS are done, so that a large model is not timed for minutes."""


def measure_serving(
    deck: Deck, load_ms: Mapping[str, float], texts: Sequence[str], max_length: int
) -> tuple[dict[str, Serving], float, float]:
    """Return every loaded entry's figures, and the base model's (milliseconds for one text, texts per second in a
    batch).

    One text is the one of median length; a batch is BATCH texts spread over all lengths.
    """
    import torch

    names = list(load_ms)
    by_length = sorted(texts, key=len)
    chosen = [by_length[(2 * place + 1) * len(by_length) // (2 * BATCH)] for place in range(BATCH)]
    with torch.inference_mode():
        one = _encoded(deck, [by_length[len(by_length) // 2]], max_length)
        first, switched = _one_text(deck, names, one)
        batch = _encoded(deck, chosen, max_length)
        own, shared = _batches(deck, names, batch)
    found = {
        name: Serving(
            latency_ms=1000 * first[name],
            latency_ratio=first[name] / first[None],
            texts_per_s=BATCH / own[name],
            mixed_texts_per_s=BATCH / shared[name],
            switch_ms=median(switched[name]),
            switch_interval_ms=of_median(switched[name]),
            load_ms=load_ms[name],
        )
        for name in names
    }
    return found, 1000 * first[None], BATCH / own[None]


def _encoded(deck: Deck, texts: Sequence[str], max_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    from tunedeck.tasks.text import pad, tokenize

    room = min(deck.text_limit(name, max_length) for name in deck.adapters)
    return pad(deck, tokenize(deck, texts, room))


def _one_text(
    deck: Deck, names: Sequence[str], inputs: tuple[torch.Tensor, torch.Tensor]
) -> tuple[dict[str | None, float], dict[str, list[float]]]:
    """Return median seconds of one text right after another adapter's; milliseconds that it takes longer than the next,
    of the same adapter, in each round.
    """
    calls: dict[tuple[str | None, bool], Callable[[], object]] = {}
    for name in (None, *names):
        for after_its_own in (False, True):
            calls[name, after_its_own] = lambda name=name: deck(*inputs, adapter=name)  # type: ignore[misc]
    taken = _take_turns(calls)
    switched = {
        name: [1000 * (first - again) for first, again in zip(taken[name, False], taken[name, True], strict=True)]
        for name in names
    }
    return {name: median(taken[name, False]) for name in (None, *names)}, switched


def _batches(
    deck: Deck, names: Sequence[str], inputs: tuple[torch.Tensor, torch.Tensor]
) -> tuple[dict[str | None, float], dict[str, float]]:
    """Return median seconds of a batch of one adapter alone, and of one whose every other row goes to the others in
    turn.
    """
    calls: dict[tuple[str | None, str], Callable[[], object]] = {}
    for name in (None, *names):
        calls[name, "own"] = lambda name=name: deck(*inputs, adapter=name)  # type: ignore[misc]
    for name in names:
        others = [other for other in names if other != name] or [name]
        rows = [name if row % 2 == 0 else others[row // 2 % len(others)] for row in range(BATCH)]
        calls[name, "shared"] = lambda rows=rows: deck(*inputs, adapter=rows)  # type: ignore[misc]
    taken = {call: median(seconds) for call, seconds in _take_turns(calls).items()}
    return {name: taken[name, "own"] for name in (None, *names)}, {name: taken[name, "shared"] for name in names}


def _take_turns(calls: Mapping[K, Callable[[], object]]) -> dict[K, list[float]]:
    """Return seconds of each call in every round after the first few; all of them take a turn in each."""
    seconds: dict[K, list[float]] = {key: [] for key in calls}
    started = time.perf_counter()
    for number in range(WARM_UP + ROUNDS):
        for key, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= WARM_UP:
                seconds[key].append(time.perf_counter() - began)
        if number >= WARM_UP + LEAST_ROUNDS - 1 and time.perf_counter() - started > TIME_LIMIT_S:
            break
    return seconds
