"""Scores of texts and of pairs of texts: regression, ordinal scales, relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch
from torch.nn import functional as F

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.data.prepare import subset
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Capability
from tunedeck.models.load import LoadedBase
from tunedeck.tasks.base import BARE_BASE, Breakdown, Dataset, Evaluation, Mistake
from tunedeck.tasks.score.config import ScoreConfig
from tunedeck.tasks.score.data import ScoredText, check_ordinal, read_examples, read_scored, reference_lines
from tunedeck.tasks.score.metrics import rounded, score_metrics
from tunedeck.tasks.text_head import HeadObjective, base_pooling, text_logits


@final
@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """An answer: the score of the first target, every target's, and the nearest level of ordinal ones."""

    score: float
    scores: Mapping[str, float]
    levels: Mapping[str, int] | None = None


@final
@dataclass(frozen=True, slots=True)
class Score(ScoreConfig):
    """Predict scores; `ScoreConfig` describes the settings."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_task: ClassVar[str] = "SEQ_CLS"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"labels", "predictions"})
    metric_for_best_model: ClassVar[str] = "r2"
    progress_metrics: ClassVar[tuple[str, ...]] = ("r2", "mae", "spearman", "loss")

    def with_labels(self, labels: Sequence[str]) -> Score:
        """Return the task with other targets, on a scale of their own."""
        if self.labels is not None and len(labels) == len(self.labels):
            return replace(self, labels=tuple(labels))
        return replace(self, labels=tuple(labels), target_means=None, target_stds=None)

    def for_base(self, base: LoadedBase) -> Score:
        """Return the same task with the base's pooling where it is "auto"."""
        return self if self.pooling != "auto" else replace(self, pooling=base_pooling(base))

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values."""
        return {"kind": self.kind, **to_values(self)}

    def read(self, settings: DataSettings) -> Dataset[ScoredText]:
        """Read, check and split scored texts; DataError where they are not usable."""
        return read_scored(settings, self)

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return the metrics of each adapter, and its answers that are furthest off."""
        metrics, breakdowns = {}, {}
        for name in names:
            task = task_of(deck, name)
            found = read_examples(settings, settings.train, task)
            examples = found.examples
            if settings.eval_size is not None:
                examples = list(subset(examples, settings.eval_size, settings.split_seed))
            if task.levels is not None:
                check_ordinal(examples, task.levels, settings.train)
            answers, metrics[name or BARE_BASE] = evaluate_scored(deck, name, examples)
            breakdowns[name or BARE_BASE] = Breakdown((), (), tuple(mistakes(examples, answers)))
        lines = reference_lines(found.targets, examples, examples)
        described = say("{count} examples; {targets}", count=len(examples), targets=lines)
        return Evaluation(described, metrics, found.notes, breakdowns)

    def objective(self, deck: Deck, name: str, dataset: Dataset[ScoredText]) -> HeadObjective:
        """Encode a dataset for one adapter of a deck."""
        return HeadObjective(
            deck,
            name,
            [example.text for example in dataset.train],
            self.max_length,
            ScoreTargets(self, dataset.train),
            lambda: evaluate_scored(deck, name, dataset.evaluation)[1],
        )

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[ScoreAnswer]:
        """Return one ScoreAnswer per text or TextPair."""
        logits = text_logits(deck, texts, adapters, self.max_length)
        return [answer_of(deck, row, name) for row, name in zip(logits, adapters, strict=True)]

    def inside(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (examples, targets) as the head learns them: standardised, or as they are."""
        if self.target_means is None or self.target_stds is None:
            return scores
        return (scores - scores.new_tensor(self.target_means)) / scores.new_tensor(self.target_stds)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what logits (examples, targets) mean in the scores' unit, float64."""
        scores = logits.double()
        if self.loss == "logistic":
            scores = scores.sigmoid()
        elif self.target_means is not None and self.target_stds is not None:
            scores = scores * scores.new_tensor(self.target_stds) + scores.new_tensor(self.target_means)
        return scores if self.levels is None else scores.clamp(*self.levels)


def task_of(deck: Deck, name: str | None) -> Score:
    """Return the task of an adapter, with its scale; that of the deck for the base model."""
    return cast(Score, deck.task if name is None else deck.adapter(name).task)


def answer_of(deck: Deck, logits: torch.Tensor, name: str | None) -> ScoreAnswer:
    """Return the answer of logits (targets,); wider ones, from a mixed batch, are cut to the adapter's targets."""
    task, targets = task_of(deck, name), deck.label_names(name)
    scores = task.scores(logits[: len(targets)])
    levels = None
    if task.levels is not None:
        levels = dict(zip(targets, map(int, rounded(scores, task.levels).tolist()), strict=True))
    return ScoreAnswer(scores[0].item(), dict(zip(targets, scores.tolist(), strict=True)), levels)


@final
class ScoreTargets:
    """The scores of training examples, and the loss of logits for them."""

    def __init__(self, task: Score, examples: Sequence[ScoredText]) -> None:
        self._logistic = task.loss == "logistic"
        self._wanted = task.inside(torch.tensor([example.scores for example in examples], dtype=torch.float32))

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of examples."""
        return len(rows)

    def loss(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the mean loss of logits (rows, targets)."""
        return score_loss(logits, self._wanted[list(rows)].to(logits.device), self._logistic)


def score_loss(logits: torch.Tensor, wanted: torch.Tensor, logistic: bool) -> torch.Tensor:
    """Return the mean squared error, or the mean cross-entropy of scores between 0 and 1, of (examples, targets)."""
    if logistic:
        return F.binary_cross_entropy_with_logits(logits.float(), wanted)
    return F.mse_loss(logits.float(), wanted)


def metrics_of(task: Score, logits: torch.Tensor, examples: Sequence[ScoredText]) -> dict[str, float]:
    """Return the metrics and the loss of logits (examples, targets)."""
    wanted = torch.tensor([example.scores for example in examples], dtype=torch.float32)
    if logits.shape != wanted.shape:
        raise ConfigError(
            say(
                "the model answers {got} numbers, the data has {count} scores for each text",
                got=logits.shape[1],
                count=wanted.shape[1],
            )
        )
    found = score_metrics(task.scores(logits), wanted, task.labels or (), task.levels)
    return {**found, "loss": score_loss(logits, task.inside(wanted), task.loss == "logistic").item()}


def evaluate_scored(
    deck: Deck, name: str | None, examples: Sequence[ScoredText]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return an adapter's scores (examples, targets) of texts, and their metrics."""
    task = task_of(deck, name)
    logits = torch.stack(
        text_logits(deck, [example.text for example in examples], [name] * len(examples), task.max_length)
    )
    return task.scores(logits), metrics_of(task, logits, examples)


def mistakes(examples: Sequence[ScoredText], answers: torch.Tensor) -> list[Mistake]:
    """Return the examples by how far their answers (examples, targets) are off, the furthest first."""
    wanted = torch.tensor([example.scores for example in examples], dtype=torch.float64)
    errors = (answers - wanted).abs().mean(1).tolist()
    found = [
        Mistake(example.text, _listed(example.scores), _listed(answer), error)
        for example, answer, error in zip(examples, answers.tolist(), errors, strict=True)
    ]
    return sorted(found, key=lambda mistake: -mistake.score)


def _listed(scores: Sequence[float]) -> str:
    return ", ".join(f"{score:.3g}" for score in scores)
