"""Token classification as serving, export and comparison use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final

import torch

from tunedeck.core.i18n import say
from tunedeck.core.plan_shape import PlanShape
from tunedeck.core.tagging import EncodedText
from tunedeck.data.prepare import subset
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task
from tunedeck.tasks.base import Comparing, Dataset, HeldOut, Mistake, TaskView
from tunedeck.tasks.tag.config import SUBWORDS, TagConfig
from tunedeck.tasks.tag.data import check_entities, read_examples
from tunedeck.tasks.tag.encoding import encode_texts, subwords_of, word_logits
from tunedeck.tasks.tag.metrics import score_of
from tunedeck.tasks.tag.reading import TaggedText
from tunedeck.tasks.tag.start import start_head
from tunedeck.tasks.tag.task import Entities, Entity, Tag, answers_of, metrics_of, mistakes, spans_of

MISTAKES = 10
_PLANNED_LABELS = 9
"""O and two tags for each of four kinds of entities, as CoNLL 2003 has them."""


@final
class TagServing:
    """Texts to entities."""

    def encode(self, deck: Deck, contents: Sequence[Any], adapter: str | None) -> list[list[int]]:
        """Return the token ids of each text in windows."""
        return [*encode_texts(deck, contents, [adapter] * len(contents), cast(Tag, deck.task).max_length)]

    def answer(self, deck: Deck, rows: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Entities]:
        """Return the entities of each text."""
        return answers_of(deck, cast("Sequence[EncodedText]", rows), adapters)

    def to_json(self, answer: Entities) -> list[dict[str, Any]]:
        """Return entities as a token-classification pipeline of transformers does."""
        return [
            {"entity_group": one.label, "score": one.score, "word": one.text, "start": one.start, "end": one.end}
            for one in answer.entities
        ]


@final
class TagOnnx:
    """Entities out of a graph, whose output is the logits of every token; the runner makes windows and words."""

    by_cosine, by_word = False, True

    def settings(self, deck: Deck, name: str) -> dict[str, Any]:
        """Return the tags, which tokens have one, and the tokens of a window with its special ones."""
        return {
            "labels": list(deck.label_names(name)),
            "subwords": subwords_of(deck, name),
            "max_length": deck.text_limit(name, cast(Tag, deck.task).max_length),
        }

    def wrong(self, settings: Mapping[str, Any]) -> str | None:
        """Return which value no entity could be found with."""
        labels, subwords = settings.get("labels"), settings.get("subwords")
        return None if labels and subwords in SUBWORDS else f"labels: {labels!r}, subwords: {subwords!r}"

    def output(self, task: Task, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, length, labels) in float32."""
        return states.float()

    def graph_key(self, task: Task) -> object:
        """Return nothing: all heads read the states of all tokens."""
        return None

    def expected(self, deck: Deck, name: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the deck's logits (batch, length, labels)."""
        with torch.inference_mode():
            logits: torch.Tensor = deck(ids, mask, adapter=name).logits
        return logits

    def answers(self, deck: Deck, name: str, texts: Sequence[str], as_query: bool) -> torch.Tensor:
        """Return the deck's logits (words, labels) of the words of all texts."""
        names = [name] * len(texts)
        return torch.cat(word_logits(deck, encode_texts(deck, texts, names, cast(Tag, deck.task).max_length), names))

    def examples(self, deck: Deck, name: str, settings: DataSettings) -> Sequence[Any]:
        """Return tagged texts; DataError for an entity of a kind that the adapter does not know."""
        found = read_examples(settings, settings.train).examples
        check_entities(found, deck.label_names(name))
        return found if settings.eval_size is None else subset(found, settings.eval_size, settings.split_seed)

    def metrics(
        self, deck: Deck, name: str, outputs: Callable[[list[str], bool], torch.Tensor], examples: Sequence[Any]
    ) -> dict[str, float]:
        """Return F1, precision, recall and loss."""
        texts = [example.text for example in examples]
        encoded = encode_texts(deck, texts, [name] * len(texts), cast(Tag, deck.task).max_length)
        logits = torch.split(outputs(texts, False), [len(one.words) for one in encoded])
        return metrics_of(examples, encoded, logits, deck.label_names(name))[1]

    def read(self, runner: Any, name: str, row: Sequence[int], output: Any) -> Entities:
        """Return the entities that the logits (words, labels) of a text's words mean."""
        return Entities(tuple(Entity(**found) for found in runner.tagged(row, output, name)["entities"]))


def _held_out(deck: Deck, name: str, dataset: Dataset[TaggedText], metric: str) -> HeldOut:
    answers = deck.predict([example.text for example in dataset.evaluation], adapter=name)
    if metric != "f1":
        return HeldOut(answers=tuple(answers))
    each = [
        score_of([example.spans], [spans_of(answer.entities)]).total
        for example, answer in zip(dataset.evaluation, answers, strict=True)
    ]
    counted = [counts.wanted + counts.found for counts in each]  # F1 in all is the mean of the texts' by this weight
    return HeldOut(tuple(counts.f1 for counts in each), tuple(map(float, counted)), tuple(answers))


def _mistakes(deck: Deck, name: str, dataset: Dataset[TaggedText], found: HeldOut) -> list[Mistake]:
    return mistakes(dataset.evaluation, found.answers)[:MISTAKES]


def _plan_shape(config: TagConfig) -> PlanShape:
    return PlanShape(labels=len(config.labels or ()) or _PLANNED_LABELS)


VIEW = TaskView(
    task=Tag,
    serving=TagServing(),
    route="entities",
    shown=lambda answer: {say("entities"): str(answer)},
    comparing=Comparing(
        text_of=lambda example: str(example.text),
        held_out=_held_out,
        mistakes=_mistakes,
        mistakes_note=lambda: say("Held-out texts with the most errors: missed, invented or wrong entities."),
        score_name=lambda: say("errors"),
    ),
    onnx=TagOnnx(),
    head_start=start_head,
    plan_shape=_plan_shape,
    pipeline_tag="token-classification",
    model_classes=("ForTokenClassification",),
    head_types=("tagging",),
)
