"""Text classification, one label per text or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch

from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Capability
from tunedeck.formats.confidence import NONE_OF_THESE
from tunedeck.models.load import LoadedBase
from tunedeck.tasks.base import BARE_BASE, Dataset, Evaluation
from tunedeck.tasks.classify.breakdown import breakdown, given_answers
from tunedeck.tasks.classify.confidence import (
    confidence_of,
    held_out_metrics,
    logits_above,
    probabilities,
    temperature_scaling,
)
from tunedeck.tasks.classify.config import ClassifyConfig
from tunedeck.tasks.classify.data import check_labels, read_examples, read_labelled
from tunedeck.tasks.classify.metrics import classification_loss, classification_metrics, targets_of
from tunedeck.tasks.classify.novelty import far_rows, vectors_read
from tunedeck.tasks.classify.prediction import Prediction
from tunedeck.tasks.classify.weights import label_weights
from tunedeck.tasks.text_head import HeadObjective, base_pooling, in_batches, logits_of_ids, text_ids, text_logits


@final
@dataclass(frozen=True, slots=True)
class Classify(ClassifyConfig):
    """Classify texts into `labels`; `ClassifyConfig` describes the settings."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_task: ClassVar[str] = "SEQ_CLS"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"labels", "predictions"})
    metric_for_best_model: ClassVar[str] = "accuracy"
    progress_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "loss")

    def with_labels(self, labels: Sequence[str]) -> Classify:
        """Return the task with other labels."""
        return replace(self, labels=tuple(labels))

    def for_base(self, base: LoadedBase) -> Classify:
        """Return the same task with the base's pooling where it is "auto"."""
        return self if self.pooling != "auto" else replace(self, pooling=base_pooling(base))

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values."""
        return {"kind": self.kind, **to_values(self)}

    def read(self, settings: DataSettings) -> Dataset[Example]:
        """Read, check and split labelled data; DataError where it is not usable."""
        return read_labelled(settings, multi_label=self.multi_label, labels=self.labels, pairs=self.pairs)

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return accuracy, macro_f1, micro_f1 and loss of each adapter; DataError for a label it was not trained on."""
        examples, notes = read_examples(settings, settings.train, self.multi_label, self.pairs)
        texts = [example.text for example in examples]
        metrics, breakdowns = {}, {}
        for name in names:
            labels, key = deck.label_names(name), name or BARE_BASE
            check_labels(examples, labels)
            logits = torch.stack(text_logits(deck, texts, [name] * len(texts), self.max_length))
            targets = targets_of(labels, [example.labels for example in examples], self.multi_label)
            known = confidence_of(deck, name)
            above = logits_above(known, labels) if self.multi_label else 0.0
            metrics[key] = classification_metrics(logits, targets, self.multi_label, above=above)
            answers = [self.prediction(deck, row, name) for row in logits]
            found = breakdown(labels, examples, [answer.certain(self.multi_label) for answer in answers])
            if known.novelty is not None:
                answers = self.predict(deck, texts, [name] * len(texts))
            breakdowns[key] = replace(
                found,
                scaling=temperature_scaling(logits, targets, self.multi_label, known.temperature),
                answered=None if known.thresholds is None else given_answers(examples, answers),
            )
        most = Counter(example.labels for example in examples).most_common(1)[0][1] / len(examples)
        described = say(
            "{count} examples; always predicting the most frequent label is right in {share:.1%}",
            count=len(examples),
            share=most,
        )
        return Evaluation(described, metrics, notes, breakdowns)

    def objective(self, deck: Deck, name: str, dataset: Dataset[Example]) -> HeadObjective:
        """Encode a dataset for one adapter of a deck."""
        return HeadObjective(
            deck,
            name,
            [example.text for example in dataset.train],
            self.max_length,
            ClassifyTargets(self, deck.label_names(name), dataset.train),
            lambda: evaluate_labelled(deck, name, self, dataset.evaluation),
        )

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Prediction]:
        """Return one Prediction per text."""
        ids = text_ids(deck, texts, adapters, self.max_length)
        return in_batches(ids, adapters, lambda rows, names: self.answer(deck, rows, names))

    def answer(self, deck: Deck, ids: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Prediction]:
        """Return the prediction of each row of token ids in one batch."""
        novel = [name for name in set(adapters) if name is not None and confidence_of(deck, name).novelty is not None]
        if not novel:
            logits, far = logits_of_ids(deck, ids, adapters), [False] * len(ids)
        else:
            with deck.lock, vectors_read(deck, novel) as read:
                logits = logits_of_ids(deck, ids, adapters)
            far = far_rows(deck, adapters, read)
        rows = zip(logits, adapters, far, strict=True)
        return [self.prediction(deck, row, name, is_far=is_far) for row, name, is_far in rows]

    def prediction(self, deck: Deck, logits: torch.Tensor, adapter: str | None, *, is_far: bool = False) -> Prediction:
        """Return the prediction of logits (labels,); wider ones, from a mixed batch, are cut to the adapter's
        labels. `is_far` tells that the text is none of the adapter's kind.
        """
        labels = deck.label_names(adapter)
        multi_label = self.multi_label if adapter is None else cast(Classify, deck.adapter(adapter).task).multi_label
        known = confidence_of(deck, adapter)
        values = probabilities(logits[: len(labels)], multi_label, known.temperature).tolist()
        chances = dict(zip(labels, values, strict=True))
        best = max(chances, key=chances.__getitem__)
        chosen, abstain = ((), NONE_OF_THESE) if is_far else known.answered(chances, multi_label)
        return Prediction(best, chances[best], chances, chosen, abstain)


def evaluate_labelled(deck: Deck, name: str | None, task: Classify, examples: Sequence[Example]) -> dict[str, float]:
    """Return metrics of an adapter on labelled examples: accuracy, macro_f1, micro_f1, loss, and the temperature."""
    logits = text_logits(deck, [example.text for example in examples], [name] * len(examples), task.max_length)
    targets = targets_of(deck.label_names(name), [example.labels for example in examples], task.multi_label)
    return held_out_metrics(torch.stack(logits), targets, task.multi_label)


@final
class ClassifyTargets:
    """The labels of training examples, and the loss of logits for them."""

    def __init__(self, task: Classify, labels: Sequence[str], examples: Sequence[Example]) -> None:
        self._task = task
        self._targets = targets_of(labels, [example.labels for example in examples], task.multi_label)
        self._weights = label_weights(task.class_weights, labels, self._targets, task.multi_label)

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of examples, or the sum of their weights."""
        if self._weights is None or self._task.multi_label:
            return len(rows)
        return float(self._weights[self._targets[list(rows)]].sum())

    def loss(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the mean loss of logits (rows, labels)."""
        targets = self._targets[list(rows)].to(logits.device)
        return classification_loss(logits, targets, self._task.multi_label, self._weights)
