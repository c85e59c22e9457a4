"""Score adapters by held-out example, so that two can be compared example by example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from tunedeck.comparison.race.sequential import Array, weighted
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Dataset, HeldOut, TrainableTask
from tunedeck.tasks.registry import comparing_of, view_of
from tunedeck.training.config import TrainingSettings

MACRO_F1, MACRO_RECALL = "macro_f1", "macro_recall"


@final
@dataclass(frozen=True, slots=True)
class Scoring:
    """The metric that decides; macro-recall is used for macro-F1, which is not a mean over examples."""

    metric: str
    lower_is_better: bool

    def scores(self, deck: Deck, name: str, dataset: Dataset[Any], examples: Sequence[Any]) -> Array:
        """Return a score for each example, higher is better, whose mean is the metric, or minus the metric.

        Raises ConfigError where the metric is not a mean over examples.
        """
        return self.scores_and_chances(deck, name, dataset, examples)[0]

    def scores_and_chances(
        self, deck: Deck, name: str, dataset: Dataset[Any], examples: Sequence[Any]
    ) -> tuple[Array, Array | None]:
        """Return the scores and, weighted alike, the probability of each right answer, None for tasks without."""
        found = self._held_out(deck, name, replace(dataset, evaluation=examples))
        if not found.scores:
            raise ConfigError(
                say(
                    "a race compares candidates example by example, which {metric} of the task {task} does not allow; "
                    "choose another metric with --set training.metric_for_best_model=..., or use: tunedeck compare",
                    metric=self.metric,
                    task=deck.task.kind,
                )
            )
        values = weighted(found.scores, found.weights)
        chances = weighted(found.chances, found.weights) if found.chances else None
        return -values if self.lower_is_better else values, chances

    def shown(self, score: float) -> float:
        """Return the metric of a mean score."""
        return -score if self.lower_is_better else score

    def _held_out(self, deck: Deck, name: str, dataset: Dataset[Any]) -> HeldOut:
        comparing = comparing_of(deck.task)
        if self.metric != MACRO_RECALL:
            return comparing.held_out(deck, name, dataset, self.metric)
        found = comparing.held_out(deck, name, dataset, "accuracy")
        pairs = comparing.confusions(deck, name, dataset, found) if comparing.confusions is not None else None
        if pairs is None:  # several labels for a text
            return HeldOut()
        counts = Counter(wanted for wanted, _ in pairs)
        return replace(found, weights=tuple(1 / counts[wanted] for wanted, _ in pairs))


def scoring_of(task: TrainableTask, dataset: Dataset[Any], settings: TrainingSettings) -> Scoring:
    """Return how a run's candidates are scored: by the metric that tells its best state."""
    metric = settings.metric_for_best_model or dataset.metric_for_best_model or task.metric_for_best_model
    if metric == MACRO_F1:
        metric = MACRO_RECALL
    return Scoring(metric, metric in view_of(task).lower_is_better)
