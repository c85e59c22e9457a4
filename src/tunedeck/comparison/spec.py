"""Specify a comparison: a run's values, the entries and seeds, the budget, the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunedeck.comparison.budget import price_of, seeds_of, with_budget
from tunedeck.comparison.grammar import Candidate, Methods, parse_methods
from tunedeck.comparison.report.values import Price
from tunedeck.core import console
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.task_settings import TaskConfig
from tunedeck.methods import registry
from tunedeck.training.config import run_config

METHODS = ",".join(kind.replace("_", "-") for kind in registry.METHODS)
METHODS_WITH_HEAD = METHODS + ",head"
"""Default entries; only a task with labels has a head that can be trained on its own."""


@dataclass(frozen=True, slots=True)
class ComparisonSpec:
    """One comparison before it runs; `budget` and `command` are the words that the report shows."""

    values: dict[str, Any]
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    folder: Path
    budget: str
    price: Price | None
    command: str
    trials: int = 0
    """Trials of the search for each entry; 0 searches nothing."""
    progress: bool = True
    ray: str | None = None
    """The address of the Ray cluster that trains the runs."""

    def tell(self, text: str) -> None:
        """Print a note to standard error, unless `progress` is False."""
        if self.progress:
            console.tell(text)


def comparison_spec(
    values: dict[str, Any],
    *,
    folder: Path,
    command: str,
    methods: Methods | None = None,
    seeds: int | str | Sequence[int] | None = None,
    search: int = 0,
    examples: int | None = None,
    minutes: float | None = None,
    budget: float | None = None,
    price_per_hour: float | None = None,
    currency: str = "CNY",
    progress: bool = True,
    ray: str | None = None,
) -> ComparisonSpec:
    """Return the comparison that the arguments of `tunedeck.compare` describe; raises ConfigError where they do not
    fit.
    """
    if price_per_hour is not None and not 0 < price_per_hour < 1e12:
        raise ConfigError(say("{name} must be above 0, got {value}", name="price_per_hour", value=price_per_hour))
    checked = run_config(values)
    candidates = parse_methods(default_methods(checked.task) if methods is None else methods, values)
    numbers = seeds_of(seeds, checked.training.seed)
    price = price_of(price_per_hour, currency.upper())
    values, in_words = with_budget(values, examples, minutes, budget, price)
    return ComparisonSpec(values, tuple(candidates), numbers, folder, in_words, price, command, search, progress, ray)


def default_methods(task: TaskConfig) -> str:
    """Return every method that the task can be trained with."""
    from tunedeck.tasks.registry import view_of

    return METHODS_WITH_HEAD if "labels" in view_of(task).task.capabilities else METHODS
