"""Token classification: the entities in a text."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch.nn import functional as F

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.tagging import EncodedText, Word, runs_of, split_tag, tags_of
from tunedeck.core.values import to_values
from tunedeck.data.prepare import subset
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.lower_layers import LowerLayers
from tunedeck.deck.task import Capability
from tunedeck.models.load import LoadedBase
from tunedeck.tasks.base import BARE_BASE, Breakdown, Dataset, Evaluation, LabelMetrics, Mistake
from tunedeck.tasks.tag.config import TagConfig
from tunedeck.tasks.tag.data import check_entities, read_examples, read_tagged
from tunedeck.tasks.tag.encoding import encode_texts, word_logits
from tunedeck.tasks.tag.metrics import ERRORS, Score, errors_of, score_of
from tunedeck.tasks.tag.reading import Span, TaggedText
from tunedeck.tasks.text import AT_A_TIME, pad

UNLEARNT = -100
"""The target of positions that decide no word."""


@final
@dataclass(frozen=True, slots=True)
class Entity:
    """An entity of a text, from `start` to `end` (exclusive) in code points; `score` is the mean probability of its
    tags.
    """

    text: str
    label: str
    start: int
    end: int
    score: float

    def __str__(self) -> str:
        return f"{self.text} ({self.label})"


@final
@dataclass(frozen=True, slots=True)
class Entities:
    """An answer: the entities of one text, in order."""

    entities: tuple[Entity, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.entities)) or say("none")


@final
@dataclass(frozen=True, slots=True)
class Tag(TagConfig):
    """Find the entities in texts; `TagConfig` describes the settings."""

    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    peft_task: ClassVar[str] = "TOKEN_CLS"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"labels", "predictions"})
    pooling: ClassVar[str] = "model"
    metric_for_best_model: ClassVar[str] = "f1"
    progress_metrics: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "loss")

    def with_labels(self, labels: Sequence[str]) -> Tag:
        """Return the same task with other tags."""
        return replace(self, labels=tuple(labels))

    def for_base(self, base: LoadedBase) -> Tag:
        """Return the task as it is: a base says nothing of how entities are found."""
        return self

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values."""
        return {"kind": self.kind, **to_values(self)}

    def read(self, settings: DataSettings) -> Dataset[TaggedText]:
        """Read, check and split tagged texts; DataError where they are not usable."""
        return read_tagged(settings, self.labels)

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return metrics of adapters, None for the base model, and their counts by kind of entity and of error."""
        examples, _, notes = read_examples(settings, settings.train)
        if settings.eval_size is not None:
            examples = list(subset(examples, settings.eval_size, settings.split_seed))
        metrics: dict[str, dict[str, float]] = {}
        breakdowns: dict[str, Breakdown] = {}
        for name in names:
            check_entities(examples, deck.label_names(name))
            answers, found, score = evaluate_tagged(deck, name, self, examples)
            metrics[name or BARE_BASE] = found | {kind: score.errors[kind] for kind in ERRORS}
            breakdowns[name or BARE_BASE] = Breakdown(label_metrics(score), (), tuple(mistakes(examples, answers)))
        described = say(
            "{count} texts with {entities} entities",
            count=len(examples),
            entities=sum(len(example.spans) for example in examples),
        )
        return Evaluation(described, metrics, notes, breakdowns)

    def objective(self, deck: Deck, name: str, dataset: Dataset[TaggedText]) -> TagObjective:
        """Encode a dataset for one adapter of a deck."""
        return TagObjective(deck, name, self, dataset)

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[Entities]:
        """Return the entities of each text."""
        return answers_of(deck, encode_texts(deck, texts, adapters, self.max_length), adapters)


def answers_of(deck: Deck, encoded: Sequence[EncodedText], adapters: Sequence[str | None]) -> list[Entities]:
    """Return the entities of each encoded text."""
    logits = word_logits(deck, encoded, adapters)
    return [
        entities_of(one.text, one.words, own, deck.label_names(name))
        for one, own, name in zip(encoded, logits, adapters, strict=True)
    ]


def entities_of(text: str, words: Sequence[Word], logits: torch.Tensor, labels: Sequence[str]) -> Entities:
    """Return what the logits (words, labels) of a text's words say."""
    chances, best = logits.double().softmax(-1).max(-1)
    found = []
    for run in runs_of(labels[number] for number in best.tolist()):
        start, end = words[run.first].start, words[run.last - 1].end
        score = chances[run.first : run.last].mean().item()
        found.append(Entity(text[start:end], run.label, start, end, score))
    return Entities(tuple(found))


def targets_of(tags: Sequence[str], labels: Sequence[str]) -> torch.Tensor:
    """Return the numbers of tags among an adapter's labels, of the nearest one where it lacks the tag itself."""
    places = {label: number for number, label in enumerate(labels)}

    def target(tag: str) -> int:
        _, kind = split_tag(tag)
        near = (tag, f"I-{kind}", kind, f"B-{kind}") if kind else (tag,)
        return next((places[one] for one in near if one in places), UNLEARNT)

    return torch.tensor([target(tag) for tag in tags], dtype=torch.long)


def evaluate_tagged(
    deck: Deck, name: str | None, task: Tag, examples: Sequence[TaggedText]
) -> tuple[list[Entities], dict[str, float], Score]:
    """Return the answers of an adapter to tagged texts, their f1, precision, recall and loss, and the counts."""
    names = [name] * len(examples)
    encoded = encode_texts(deck, [example.text for example in examples], names, task.max_length)
    return metrics_of(examples, encoded, word_logits(deck, encoded, names), deck.label_names(name))


def metrics_of(
    examples: Sequence[TaggedText],
    encoded: Sequence[EncodedText],
    logits: Sequence[torch.Tensor],
    labels: Sequence[str],
) -> tuple[list[Entities], dict[str, float], Score]:
    """Return what the logits (words, labels) of tagged texts say, their f1, precision, recall and loss, and the
    counts.
    """
    found = [entities_of(one.text, one.words, own, labels) for one, own in zip(encoded, logits, strict=True)]
    targets = [
        targets_of(tags_of(one.words, example.spans)[0], labels) for one, example in zip(encoded, examples, strict=True)
    ]
    loss = F.cross_entropy(torch.cat(list(logits)), torch.cat(targets), ignore_index=UNLEARNT).item()
    score = score_of([example.spans for example in examples], [spans_of(one.entities) for one in found])
    total = score.total
    return found, {"f1": total.f1, "precision": total.precision, "recall": total.recall, "loss": loss}, score


def spans_of(entities: Sequence[Entity]) -> list[Span]:
    """Return entities as the spans of a data set."""
    return [Span(one.start, one.end, one.label) for one in entities]


def label_metrics(score: Score) -> tuple[LabelMetrics, ...]:
    """Return the metrics by kind of entity."""
    return tuple(
        LabelMetrics(label, own.precision, own.recall, own.f1, own.wanted)
        for label, own in sorted(score.by_label.items())
    )


def mistakes(examples: Sequence[TaggedText], answers: Sequence[Entities]) -> list[Mistake]:
    """Return the texts with errors; the score is their number, and the most come first."""
    found = []
    for example, answer in zip(examples, answers, strict=True):
        errors = errors_of(example.spans, spans_of(answer.entities))
        if errors:
            wanted = [
                Entity(example.text[one.start : one.end], one.label, one.start, one.end, 1.0) for one in example.spans
            ]
            found.append(Mistake(example.text, str(Entities(tuple(wanted))), str(answer), float(len(errors))))
    return sorted(found, key=lambda mistake: -mistake.score)


@final
class TagObjective:
    """Windows of tagged texts as token ids, and the loss of any of them on the words that they decide."""

    divisible: ClassVar[bool] = True
    texts_per_example: ClassVar[float] = 1.0

    def __init__(self, deck: Deck, name: str, task: Tag, dataset: Dataset[TaggedText]) -> None:
        self._deck, self._name, self._task, self._dataset = deck, name, task, dataset
        self._ids, self._targets, uneven = learnt_windows(deck, name, task, dataset.train)
        if uneven:
            warnings.warn(
                say(
                    "{count} of {total} entities begin or end inside a word or a token of this base and are learnt "
                    "with its borders; subwords: all divides words",
                    count=uneven,
                    total=sum(len(example.spans) for example in dataset.train),
                ),
                stacklevel=2,
            )
        self.lengths: Sequence[int] = [len(ids) for ids in self._ids]
        self._lower = LowerLayers(deck.base, deck.adapter(name), self.lengths)
        self.remembers = self._lower.keeps

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of words that are learnt."""
        return sum(int((self._targets[row] != UNLEARNT).sum()) for row in rows)

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return the mean loss of the words in some windows, and how many positions were computed."""
        ids, mask = pad(self._deck, [self._ids[row] for row in rows])
        with self._lower.patch(rows).on(self._deck.base):
            logits = self._deck(ids, mask, adapter=self._name).logits
        return self._mean_loss(logits, rows), ids.numel()

    @staticmethod
    def losses(parts: Sequence[tuple[TagObjective, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """Return the same of several objectives, each with rows of its own, from one pass through the base."""
        deck = parts[0][0]._deck
        ids, mask = pad(deck, [objective._ids[row] for objective, rows in parts for row in rows])
        logits = deck(ids, mask, adapter=[objective._name for objective, rows in parts for _ in rows]).logits
        own = torch.split(logits, [len(rows) for _, rows in parts])
        return [
            (objective._mean_loss(one, rows), len(rows) * ids.shape[1])
            for (objective, rows), one in zip(parts, own, strict=True)
        ]

    def evaluate(self) -> dict[str, float]:
        """Return f1, precision, recall and loss on the held-out texts."""
        return evaluate_tagged(self._deck, self._name, self._task, self._dataset.evaluation)[1]

    def _mean_loss(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Logits (rows, positions, labels) to the mean over the words; labels of other adapters are left out."""
        targets = torch.full(logits.shape[:2], UNLEARNT)
        for place, row in enumerate(rows):
            targets[place, : len(self._targets[row])] = self._targets[row]
        learnt = targets != UNLEARNT
        known = logits[learnt.to(logits.device), : len(self._deck.label_names(self._name))]
        return F.cross_entropy(known.float(), targets[learnt].to(logits.device))


def _encoded(
    deck: Deck, name: str, task: Tag, examples: Sequence[TaggedText]
) -> Iterator[tuple[EncodedText, TaggedText]]:
    for start in range(0, len(examples), AT_A_TIME):
        part = examples[start : start + AT_A_TIME]
        texts = [example.text for example in part]
        yield from zip(encode_texts(deck, texts, [name] * len(part), task.max_length), part, strict=True)


def learnt_windows(
    deck: Deck, name: str, task: Tag, examples: Sequence[TaggedText]
) -> tuple[list[list[int]], list[torch.Tensor], int]:
    """Return the token ids of every window that decides a word, the target of each of its positions, and the number of
    entities whose borders are inside a word; DataError when no text has a word.
    """
    labels, uneven = deck.label_names(name), 0
    ids: list[list[int]] = []
    targets: list[torch.Tensor] = []
    for one, example in _encoded(deck, name, task, examples):
        tags, apart = tags_of(one.words, example.spans)
        uneven += apart
        numbers = targets_of(tags, labels)
        for row, window in enumerate(one.rows):
            decided, positions = one.decided(row)
            if decided:
                own = torch.full((len(window),), UNLEARNT)
                own[positions] = numbers[decided]
                ids.append(window)
                targets.append(own)
    if not ids:
        raise DataError(say("there is no word in the texts to train on"))
    return ids, targets, uneven
