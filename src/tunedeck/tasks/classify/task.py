"""Text classification, one label per text or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.data.batches import batches_by_length
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import reads_trained
from tunedeck.deck.patches.base import Patch, Unchanged, patched
from tunedeck.deck.patches.first_position import FirstPositionOnly
from tunedeck.deck.patches.lower_layers import LowerLayers
from tunedeck.deck.task import Capability, pooling_of
from tunedeck.models.load import LoadedBase
from tunedeck.models.sentence import sentence_settings
from tunedeck.tasks.base import BARE_BASE, Dataset, Evaluation
from tunedeck.tasks.classify.breakdown import breakdown
from tunedeck.tasks.classify.config import ClassifyConfig
from tunedeck.tasks.classify.data import check_labels, read_examples, read_labelled
from tunedeck.tasks.classify.metrics import classification_loss, classification_metrics, targets_of
from tunedeck.tasks.classify.weights import label_weights
from tunedeck.tasks.text import pad, tokenize, tokenize_rows


@final
@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer: the likeliest label with its probability, and every label's; `labels` all above 0.5 when
    multi-label.
    """

    label: str
    score: float
    probabilities: Mapping[str, float]
    labels: tuple[str, ...]


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
        """Return the same task with the base's own pooling where it is "auto".

        That is what a sentence-transformers model says of itself, the model's own where all that its head reads is
        trained or the model is a decoder, which reads the last token, else the mean.
        """
        if self.pooling != "auto":
            return self
        told = sentence_settings(base.reference)
        if told is not None and told.pooling is not None:
            return replace(self, pooling=told.pooling)
        return replace(self, pooling="model" if reads_trained(base) else "mean")

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values."""
        return {"kind": self.kind, **to_values(self)}

    def read(self, settings: DataSettings) -> Dataset[Example]:
        """Read, check and split labelled data; DataError where it is not usable."""
        return read_labelled(settings, multi_label=self.multi_label, labels=self.labels)

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return accuracy, macro_f1, micro_f1 and loss of each adapter; DataError for a label it was not trained on."""
        examples, notes = read_examples(settings, settings.train, self.multi_label)
        texts = [example.text for example in examples]
        metrics, breakdowns = {}, {}
        for name in names:
            labels, key = deck.label_names(name), name or BARE_BASE
            check_labels(examples, labels)
            logits = classify_logits(deck, texts, [name] * len(texts), self.max_length)
            targets = targets_of(labels, [example.labels for example in examples], self.multi_label)
            metrics[key] = classification_metrics(torch.stack(logits), targets, self.multi_label)
            breakdowns[key] = breakdown(labels, examples, [self.prediction(deck, row, name) for row in logits])
        most = Counter(example.labels for example in examples).most_common(1)[0][1] / len(examples)
        described = say(
            "{count} examples; always predicting the most frequent label is right in {share:.1%}",
            count=len(examples),
            share=most,
        )
        return Evaluation(described, metrics, notes, breakdowns)

    def objective(self, deck: Deck, name: str, dataset: Dataset[Example]) -> ClassifyObjective:
        """Encode a dataset for one adapter of a deck."""
        return ClassifyObjective(deck, name, self, dataset)

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Prediction]:
        """Return one Prediction per text."""
        logits = classify_logits(deck, texts, adapters, self.max_length)
        return [self.prediction(deck, row, name) for row, name in zip(logits, adapters, strict=True)]

    def prediction(self, deck: Deck, logits: torch.Tensor, adapter: str | None) -> Prediction:
        """Return the prediction of logits (labels,); wider ones, from a mixed batch, are cut to the adapter's
        labels.
        """
        labels = deck.label_names(adapter)
        multi_label = self.multi_label if adapter is None else cast(Classify, deck.adapter(adapter).task).multi_label
        own = logits[: len(labels)].double()
        chances = (own.sigmoid() if multi_label else own.softmax(-1)).tolist()
        best = max(range(len(labels)), key=chances.__getitem__)
        chosen = tuple(label for label, chance in zip(labels, chances, strict=True) if chance > 0.5)
        return Prediction(
            label=labels[best],
            score=chances[best],
            probabilities=dict(zip(labels, chances, strict=True)),
            labels=chosen if multi_label else (labels[best],),
        )


def classify_logits(
    deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], max_length: int, batch_size: int = 32
) -> list[torch.Tensor]:
    """Return the logits of every text, in order; batches go from short to long texts so that little is padded."""
    ids = classify_ids(deck, texts, adapters, max_length)
    logits: dict[int, torch.Tensor] = {}
    for rows in batches_by_length([len(one) for one in ids], batch_size):
        batch = logits_of_ids(deck, [ids[row] for row in rows], [adapters[row] for row in rows])
        logits.update(zip(rows, batch, strict=True))
    return [logits[row] for row in range(len(texts))]


def logits_of_ids(deck: Deck, ids: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> torch.Tensor:
    """Return logits (rows, labels), float32, on the CPU, of one batch of token ids."""
    input_ids, attention_mask = pad(deck, ids)
    with torch.inference_mode(), deck.lock, only_read_positions(deck, adapters).on(deck.base):
        logits: torch.Tensor = deck(input_ids, attention_mask, adapter=adapters).logits
    return logits.float().cpu()


def only_read_positions(deck: Deck, adapters: Sequence[str | None]) -> Patch:
    """Return the patch that spares what none of these rows' heads reads."""
    own = all(name is None or pooling_of(deck.adapter(name).task) == "model" for name in set(adapters))
    return FirstPositionOnly() if own else Unchanged()


def classify_ids(deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], max_length: int) -> list[list[int]]:
    """Return token ids of every text, each cut to what its own adapter's virtual tokens leave of `max_length`."""
    return tokenize_rows(deck, texts, [deck.text_limit(name, max_length) for name in adapters])


def evaluate_labelled(deck: Deck, name: str | None, task: Classify, examples: Sequence[Example]) -> dict[str, float]:
    """Return metrics of an adapter on labelled examples: accuracy, macro_f1, micro_f1, loss."""
    logits = classify_logits(deck, [example.text for example in examples], [name] * len(examples), task.max_length)
    targets = targets_of(deck.label_names(name), [example.labels for example in examples], task.multi_label)
    return classification_metrics(torch.stack(logits), targets, task.multi_label)


@final
class ClassifyObjective:
    """Labelled examples as token ids, and the loss of any of them."""

    divisible: ClassVar[bool] = True
    texts_per_example: ClassVar[float] = 1.0

    def __init__(self, deck: Deck, name: str, task: Classify, dataset: Dataset[Example]) -> None:
        self._deck, self._name, self._task, self._dataset = deck, name, task, dataset
        limit = deck.text_limit(name, task.max_length)
        if limit < 3:
            raise ConfigError(say("max_length leaves no room for text besides the virtual tokens; raise it"))
        self._ids = tokenize(deck, [example.text for example in dataset.train], limit)
        labels = [example.labels for example in dataset.train]
        self._targets = targets_of(deck.label_names(name), labels, task.multi_label)
        self._weights = label_weights(task.class_weights, deck.label_names(name), self._targets, task.multi_label)
        self.lengths: Sequence[int] = [len(ids) for ids in self._ids]
        self._lower = LowerLayers(deck.base, deck.adapter(name), self.lengths)
        self.remembers = self._lower.keeps

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of examples, or the sum of their weights."""
        if self._weights is None or self._task.multi_label:
            return len(rows)
        return float(self._weights[self._targets[list(rows)]].sum())

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return mean loss of some training examples, and how many positions were computed."""
        ids, mask = pad(self._deck, [self._ids[row] for row in rows])
        with patched(self._deck.base, self._lower.patch(rows), only_read_positions(self._deck, [self._name])):
            logits = self._deck(ids, mask, adapter=self._name).logits
        targets = self._targets[list(rows)].to(logits.device)
        return classification_loss(logits, targets, self._task.multi_label, self._weights), ids.numel()

    @staticmethod
    def losses(parts: Sequence[tuple[ClassifyObjective, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """Return the losses of several objectives, each with its own rows, from one pass through the base."""
        deck = parts[0][0]._deck
        ids, mask = pad(deck, [objective._ids[row] for objective, rows in parts for row in rows])
        names = [objective._name for objective, rows in parts for _ in rows]
        with only_read_positions(deck, names).on(deck.base):
            logits = deck(ids, mask, adapter=names).logits
        found = []
        for (objective, rows), own in zip(parts, torch.split(logits, [len(rows) for _, rows in parts]), strict=True):
            known = own[:, : len(deck.label_names(objective._name))]
            targets = objective._targets[list(rows)].to(own.device)
            loss = classification_loss(known, targets, objective._task.multi_label, objective._weights)
            found.append((loss, len(rows) * ids.shape[1]))
        return found

    def evaluate(self) -> dict[str, float]:
        """Return accuracy, macro_f1, micro_f1 and loss on the held-out examples."""
        return evaluate_labelled(self._deck, self._name, self._task, self._dataset.evaluation)
