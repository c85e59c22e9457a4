"""What other rooms ask of token classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, final

from tunedeck.core.i18n import say
from tunedeck.core.plan_shape import PlanShape
from tunedeck.core.tagging import EncodedText
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Comparing, Dataset, HeldOut, Mistake, TaskView
from tunedeck.tasks.tag.config import TagConfig
from tunedeck.tasks.tag.encoding import encode_texts
from tunedeck.tasks.tag.metrics import score_of
from tunedeck.tasks.tag.reading import TaggedText
from tunedeck.tasks.tag.start import start_head
from tunedeck.tasks.tag.task import Entities, Tag, answers_of, mistakes, spans_of

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
    head_start=start_head,
    plan_shape=_plan_shape,
    pipeline_tag="token-classification",
    model_classes=("ForTokenClassification",),
)
