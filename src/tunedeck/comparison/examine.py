"""A saved adapter examined on the examples that its run held out: every answer, confusions, mistakes, reliability."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from tunedeck.comparison.report.confusion import counted
from tunedeck.comparison.report.values import Confusion, Mistake
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.reliability import TemperatureScaling
from tunedeck.core.values import from_values
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import TrainableTask
from tunedeck.tasks.registry import comparing_of
from tunedeck.training.config import read_run_file

_CONFIG = "config.yaml"


@dataclass(frozen=True, slots=True)
class Examined:
    """An adapter on held-out examples; what its task does not have is empty or None."""

    source: str
    """The data that the examples are from."""
    answered: tuple[tuple[str, str, str], ...]
    """Text, wanted label and predicted label of every example that has one label."""
    confusion: Confusion | None
    mistakes: tuple[Mistake, ...]
    """The worst, the worst first."""
    scaling: TemperatureScaling | None


def held_out_data(adapter: Path) -> DataSettings | None:
    """Return the data settings of the run that an adapter folder belongs to; None where no run file is beside it, or
    where its head was fitted to the held-out part too.

    Raises ConfigError for a run file that is damaged.
    """
    file = adapter.parent / _CONFIG
    if not file.is_file():
        return None
    run = read_run_file(file)
    if run.get("refit_head"):
        return None
    values = run.get("data")
    if not isinstance(values, dict):
        raise ConfigError(say("{path} is damaged: {reason}", path=file, reason="data"))
    return from_values(DataSettings, values, "data")


def examine(adapter: Path, data: DataSettings, *, whole: bool = False) -> Examined:
    """Answer the held-out part of `data` again by an adapter, or all of it (`whole`).

    Raises what Deck.open raises, DataError for data that does not fit, ConfigError for a task that is not compared.
    """
    deck = Deck.open(adapter)
    (name,) = deck.adapters
    if whole:
        data = data.model_copy(update={"eval": None, "eval_fraction": 0.5, "deduplicate": False})
    dataset = cast(TrainableTask, deck.task).read(data)
    if whole:
        dataset = replace(dataset, evaluation=[*dataset.train, *dataset.evaluation])
    comparing = comparing_of(deck.task)
    answers = comparing.held_out(deck, name, dataset, "accuracy")
    pairs = comparing.confusions(deck, name, dataset, answers) if comparing.confusions is not None else None
    texts = [comparing.text_of(example) for example in dataset.evaluation]
    return Examined(
        data.eval or data.train,
        () if pairs is None else tuple((text, *pair) for text, pair in zip(texts, pairs, strict=True)),
        None if pairs is None else counted(name, deck.label_names(name), pairs),
        tuple(Mistake(*one) for one in comparing.mistakes(deck, name, dataset, answers)) if comparing.mistakes else (),
        comparing.scaling(deck, name, dataset, answers) if comparing.scaling is not None else None,
    )
