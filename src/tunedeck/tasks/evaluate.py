"""Adapters evaluated on data that they were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tunedeck.core.values import from_values
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Evaluation, TrainableTask


def evaluate(
    deck: Deck,
    data: str | Mapping[str, Any] | DataSettings,
    *,
    adapters: Sequence[str] | None = None,
    include_base: bool = False,
) -> Evaluation:
    """Evaluate adapters of a deck on all examples of a data set: `evaluate(Deck.open("adapters/law"), "test.csv")`.

    `data` is a file, a hub id or a `bundled:` name, or the keys of a run file's `data` with columns and encoding.
    `adapters` are the names of those to evaluate, all loaded ones by default; `include_base` adds the base model, as
    "base". Returns an Evaluation: `metrics[adapter][metric]`, shares between 0 and 1 (losses in nats), `description` of
    the data in one line, and for classification `breakdowns[adapter]`: metrics by label, confusion matrix, mistakes.

    Raises DataError for data that is not usable or holds a label that an adapter does not know, ConfigError for an
    unknown key of `data`, UnknownAdapterError for a name that is not loaded.
    """
    if not isinstance(data, DataSettings):
        data = from_values(DataSettings, {"train": data} if isinstance(data, str) else data, "data")
    names: list[str | None] = list(deck.adapters if adapters is None else adapters)
    for name in names:
        deck.adapter(cast(str, name))
    return cast(TrainableTask, deck.task).evaluate(deck, [*names, *([None] if include_base else [])], data)
