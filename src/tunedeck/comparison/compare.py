"""One comparison, from what was asked to the result: search, runs, measurements, answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunedeck.cli.console import tell
from tunedeck.comparison.grammar import Candidate
from tunedeck.comparison.report.result import Price
from tunedeck.comparison.runs import Run, carry_out, is_finished, planned_runs
from tunedeck.core.messages import say

if TYPE_CHECKING:
    from tunedeck.comparison.report.result import Comparison
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.base import Dataset


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked: a run's values, the entries and seeds, the folder, and how it is to be told of."""

    values: dict[str, Any]
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    home: Path
    budget: str
    price: Price | None
    command: str
    trials: int = 0
    """Of the search, for each entry; 0 searches nothing."""


def clear(home: Path) -> None:
    """Throw away what an earlier comparison left in the folder."""
    from tunedeck.comparison.search import FILE

    for name in ("runs", "figures"):
        shutil.rmtree(home / name, ignore_errors=True)
    for name in (FILE, "comparison.json", "report.html", "report.md"):
        (home / name).unlink(missing_ok=True)


def compare(order: Order) -> tuple[Comparison, Deck]:
    """Everything that was asked, and the deck with every entry's first run loaded under the entry's name.

    Runs that are finished already are not made again. Raises ConfigError or DataError where an earlier comparison of other
    settings or data lies there.
    """
    from tunedeck.comparison.results import assembled
    from tunedeck.tasks.registry import task_of

    began = time.perf_counter()
    runs = planned_runs(order.values, order.candidates, order.seeds, order.home)
    task = task_of(runs[0].config.task)
    dataset: Dataset[Any] = task.read(runs[0].config.data)
    metric = runs[0].config.training.best_by or dataset.best_by or task.best_by
    tell(dataset.description)
    tried: list[dict[str, Any]] = []
    if order.trials:
        candidates, tried = _searched(order, runs, dataset, metric)
        runs = planned_runs(order.values, candidates, order.seeds, order.home)
    open_runs = [run for run in runs if not is_finished(run, dataset.sha256)]
    if len(open_runs) < len(runs):
        tell(say("{done} of {count} runs are there already", done=len(runs) - len(open_runs), count=len(runs)))
    for run in open_runs:
        carry_out(run)
    first = [run for run in runs if run.seed == order.seeds[0]]
    deck, load_ms = opened(first)
    return assembled(order, runs, dataset, metric, deck, load_ms, tried, began), deck


def _searched(order: Order, runs: Sequence[Run], dataset: Dataset[Any], metric: str) -> tuple[list[Candidate], list[dict[str, Any]]]:  # fmt: skip
    from tunedeck.comparison.search import search

    order.home.mkdir(parents=True, exist_ok=True)
    first = [run for run in runs if run.seed == order.seeds[0]]
    return search(first, order.trials, _base_of(first[0], dataset.labels), dataset, metric, order.home)


def opened(runs: Sequence[Run]) -> tuple[Deck, dict[str, float]]:
    """A deck with each run's adapter under its entry's name, and the milliseconds each took to load."""
    deck = _base_of(runs[0], runs[0].manifest().task.get("labels"))
    load_ms = {}
    for run in runs:
        began = time.perf_counter()
        deck.load_adapter(run.adapter, run.candidate.name)
        load_ms[run.candidate.name] = 1000 * (time.perf_counter() - began)
    return deck, load_ms


def _base_of(run: Run, labels: Sequence[str] | None) -> Deck:
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.registry import task_of

    config = run.config
    task = task_of(config.task)
    return Deck.load(
        config.model,
        task if labels is None else task.with_labels(labels),
        dtype=config.dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )
