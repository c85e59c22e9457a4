"""Measure a graph against torch: quality on labelled data, latency and throughput, alternating between the two.

torch runs the same graph of modules, with LoRA merged as it is in the file, on batches padded as the deck pads them;
ONNX Runtime runs batches padded as the runner pads them. Both have the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tunedeck.core.text_pair import PairIds
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.export.onnx.folder import runner_texts
from tunedeck.export.onnx.graph import graph_of, onnx_view
from tunedeck.formats.onnx.runner import Runner
from tunedeck.tasks.registry import comparing_of
from tunedeck.tasks.text import padded

ALONE, BATCH = 100, 32
"""Texts timed one by one, and texts in a batch."""
BATCHES = 6
ROUNDS = 3
PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class Side:
    """One way to run an adapter: answers to texts, and one batch of token ids."""

    answers: Callable[[list[str], bool], torch.Tensor]
    run: Callable[[list[list[int]]], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """One side's numbers."""

    name: str
    metrics: dict[str, float]
    latency_ms: float
    """Median latency of a single text."""
    texts_per_s: float
    """In batches of 32, sorted by length; median over the rounds."""


def measure(
    decks: Mapping[str, Deck], name: str, folders: Mapping[str, Path], examples: Sequence[Any]
) -> list[Measured]:
    """Measure every deck ("torch float32": deck) and every graph of the exported folders ("ONNX": folder) on the same
    examples.
    """
    threads = torch.get_num_threads()
    sides = {label: _torch_side(deck, name) for label, deck in decks.items()}
    runners = {
        f"{label} {precision}": Runner(folder, precision, threads)
        for label, folder in folders.items()
        for precision in Runner(folder).settings["files"]
    }
    sides |= {label: _onnx_side(runner, name) for label, runner in runners.items()}
    deck = next(iter(decks.values()))
    view, comparing = onnx_view(deck), comparing_of(deck.task)
    metrics = {label: view.metrics(deck, name, side.answers, examples) for label, side in sides.items()}
    asked = runner_texts([comparing.text_of(example) for example in examples])
    rows = [
        PairIds(row, row.types) if any(row.types) else list(row)
        for row in next(iter(runners.values())).token_ids(asked, name)
    ]
    alone = _take_turns(sides, [[row] for row in rows[:ALONE]])
    ordered = sorted(rows[: BATCH * BATCHES], key=len)
    batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    together = _take_turns(sides, batches)
    return [
        Measured(
            label,
            metrics[label],
            latency_ms=1e3 * median(seconds for turn in alone[label] for seconds in turn),
            texts_per_s=len(ordered) / median(sum(turn) for turn in together[label]),
        )
        for label in sides
    ]


def read_examples(deck: Deck, name: str, settings: DataSettings) -> Sequence[Any]:
    """Return the examples to measure on, `settings.eval_size` at most; DataError where they do not fit the adapter."""
    return onnx_view(deck).examples(deck, name, settings)


def _torch_side(deck: Deck, name: str) -> Side:
    graph = graph_of(deck, name, merge=deck.adapter(name).config.mergeable)

    def run(rows: list[list[int]]) -> object:
        with torch.inference_mode():
            return graph(**padded(deck, rows).named())

    return Side(lambda texts, as_query: onnx_view(deck).answers(deck, name, texts, as_query), run)


def _onnx_side(runner: Runner, name: str) -> Side:
    return Side(
        lambda texts, as_query: torch.from_numpy(runner.outputs(runner_texts(texts), [name], as_query)),
        lambda rows: runner.run_rows(rows, runner.active([name])),
    )


def _take_turns(sides: Mapping[str, Side], batches: Sequence[list[list[int]]]) -> dict[str, list[list[float]]]:
    """Return seconds of every batch by side and round; the sides take turns at all batches, and the first round is not
    counted.

    Turns are whole rounds with a pause before them: both libraries' idle threads spin for a while, and would slow the
    other side down were it called next (torch float32 on two threads: 90 ms for a text instead of some 12).
    """
    taken: dict[str, list[list[float]]] = {label: [] for label in sides}
    for _ in range(ROUNDS + 1):
        for label, side in sides.items():
            time.sleep(PAUSE_S)
            side.run(batches[0])
            seconds = []
            for batch in batches:
                began = time.perf_counter()
                side.run(batch)
                seconds.append(time.perf_counter() - began)
            taken[label].append(seconds)
    return {label: turns[1:] for label, turns in taken.items()}
