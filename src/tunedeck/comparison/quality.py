"""Collect predictions on the held-out examples: scores for intervals, confusions and mistakes of the best entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunedeck.comparison.report.confusion import counted
from tunedeck.comparison.report.interval import over_examples, over_seeds
from tunedeck.comparison.report.values import Confusion, Interval, Mistake
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Dataset, HeldOut
from tunedeck.tasks.registry import comparing_of


def answers_of(deck: Deck, name: str, dataset: Dataset[Any], metric: str) -> HeldOut:
    """Answer every held-out example by one entry; nothing for a task that does not score single examples."""
    return comparing_of(deck.task).held_out(deck, name, dataset, metric)


def interval_of(answers: HeldOut | None, values: Sequence[float]) -> Interval | None:
    """Return the interval over seeds if there are several values, else over the held-out examples; None without
    scores.
    """
    if len(values) > 1:
        return over_seeds(values)
    return over_examples(answers.scores, answers.weights) if answers and answers.scores else None


def behind(
    best: HeldOut | None, own: HeldOut | None, differences: Sequence[float], higher_is_better: bool
) -> Interval | None:
    """Return how far an entry is behind the best one, compared seed by seed (`differences`) or example by example."""
    if len(differences) > 1:
        return over_seeds(differences)
    if not best or not own or not own.scores:
        return None
    sign = 1 if higher_is_better else -1
    each = [sign * (ahead - late) for ahead, late in zip(best.scores, own.scores, strict=True)]
    return over_examples(each, own.weights)


def confusion_and_mistakes(
    deck: Deck, name: str, dataset: Dataset[Any], answers: HeldOut
) -> tuple[Confusion | None, tuple[Mistake, ...]]:
    """Return the best entry's confusions, where each text has one label, and its worst mistakes, where the task shows
    any.
    """
    comparing = comparing_of(deck.task)
    mistakes = comparing.mistakes(deck, name, dataset, answers) if comparing.mistakes is not None else ()
    pairs = comparing.confusions(deck, name, dataset, answers) if comparing.confusions is not None else None
    confusion = None if pairs is None else counted(name, deck.label_names(name), pairs)
    return confusion, tuple(Mistake(*one) for one in mistakes)


def texts_of(deck: Deck, dataset: Dataset[Any]) -> list[str]:
    """Return the held-out texts as they would be asked."""
    text_of = comparing_of(deck.task).text_of
    return [text_of(example) for example in dataset.evaluation]
