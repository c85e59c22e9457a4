"""What the entries answered on the held-out examples: scores for intervals, confusions and mistakes of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from tunedeck.comparison.report.confusion import counted
from tunedeck.comparison.report.interval import over_examples, over_seeds
from tunedeck.comparison.report.result import Confusion, Interval, Mistake

if TYPE_CHECKING:
    from tunedeck.data.chat import Conversation
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.base import Dataset
    from tunedeck.tasks.classify.task import Classify, Prediction
    from tunedeck.tasks.generate.task import Generate

MISTAKES = 10
CHATS = 5
ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Answers:
    """One entry's answers on the held-out examples.

    `scores` is a number for each, whose mean by `weights` is the metric that decides; empty where it is no such mean.
    """

    scores: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    chats: tuple[tuple[Conversation, float, int], ...] = ()


def answers_of(deck: Deck, name: str, dataset: Dataset[Any], metric: str) -> Answers:
    """Answer every held-out example by one entry; nothing for embeddings."""
    if deck.task.kind == "classify":
        predictions = deck.predict([example.text for example in dataset.evaluation], adapter=name)
        right = [set(one.labels) == set(p.labels) for one, p in zip(dataset.evaluation, predictions, strict=True)]
        scores = tuple(map(float, right)) if metric == "accuracy" else ()
        return Answers(scores, (1.0,) * len(scores), predictions=tuple(predictions))
    if deck.task.kind == "generate":
        held_out = replace(dataset, train=dataset.evaluation)  # the training side is not looked at
        chats = cast("Generate", deck.task).objective(deck, name, held_out).held_out_losses()
        losses = chats if metric == "loss" else ()
        scores, weights = tuple(loss for _, loss, _ in losses), tuple(float(size) for *_, size in losses)
        return Answers(scores, weights, chats=tuple(chats))
    return Answers()


def interval_of(answers: Answers | None, values: Sequence[float]) -> Interval | None:
    """Over seeds where there are several values; else over the held-out examples, None where they have no scores."""
    if len(values) > 1:
        return over_seeds(values)
    return over_examples(answers.scores, answers.weights) if answers and answers.scores else None


def behind(
    best: Answers | None, own: Answers | None, differences: Sequence[float], higher_is_better: bool
) -> Interval | None:
    """How far an entry is behind the best one, compared seed by seed (`differences`) or example by example."""
    if len(differences) > 1:
        return over_seeds(differences)
    if not best or not own or not own.scores:
        return None
    sign = 1 if higher_is_better else -1
    each = [sign * (ahead - late) for ahead, late in zip(best.scores, own.scores, strict=True)]
    return over_examples(each, own.weights)


def confusion_and_mistakes(
    deck: Deck, name: str, dataset: Dataset[Any], answers: Answers
) -> tuple[Confusion | None, tuple[Mistake, ...]]:
    """The best entry's confusions, where each text has one label, and its worst mistakes; nothing for embeddings."""
    if answers.chats:
        return None, _of_chats(deck, name, answers)
    return _of_labels(deck, name, dataset, answers) if answers.predictions else (None, ())


def _of_labels(
    deck: Deck, name: str, dataset: Dataset[Any], answers: Answers
) -> tuple[Confusion | None, tuple[Mistake, ...]]:
    examples = dataset.evaluation
    wrong = [
        Mistake(example.text, ", ".join(example.labels), ", ".join(answer.labels), _sureness(example.labels, answer))
        for example, answer in zip(examples, answers.predictions, strict=True)
        if set(example.labels) != set(answer.labels)
    ]
    worst = tuple(sorted(wrong, key=lambda mistake: -mistake.score)[:MISTAKES])
    if cast("Classify", deck.task).multi_label:
        return None, worst
    wanted, answered = [example.labels[0] for example in examples], [answer.label for answer in answers.predictions]
    return counted(name, deck.label_names(name), wanted, answered), worst


def _sureness(wanted: Sequence[str], answer: Prediction) -> float:
    """The probability of what is most wrong: a label that does not belong, or the absence of one that does."""
    odd = {label: answer.probabilities[label] for label in answer.labels if label not in wanted}
    missing = {label: 1 - answer.probabilities[label] for label in wanted if label not in answer.labels}
    return max([*odd.values(), *([] if odd else missing.values())])


def _of_chats(deck: Deck, name: str, answers: Answers) -> tuple[Mistake, ...]:
    from tunedeck.generation.sampling import Sampling

    worst = sorted(answers.chats, key=lambda one: -one[1])[:CHATS]
    asked = [list(chat.as_dicts()[:-1]) for chat, *_ in worst]
    said = deck.generate(asked, name, Sampling(max_tokens=ANSWER_TOKENS))
    return tuple(
        Mistake("\n".join(turn["content"] for turn in turns), chat.answer, answer, loss)
        for turns, answer, (chat, loss, _) in zip(asked, said, worst, strict=True)
    )


def texts_of(dataset: Dataset[Any]) -> list[str]:
    """The held-out texts as they would be asked."""
    from tunedeck.data.chat import Conversation
    from tunedeck.data.labelled import Example
    from tunedeck.data.pairs import Pair

    found = []
    for one in dataset.evaluation:
        if isinstance(one, Conversation):
            found.append(one.prompt[-1].content if one.prompt else one.answer)
        else:
            found.append(one.text if isinstance(one, Example) else one.anchor if isinstance(one, Pair) else one.first)
    return found
