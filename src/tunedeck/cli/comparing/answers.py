"""What the entries answered on the held-out examples: scores for intervals, confusions and mistakes of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tunedeck.report.confusion import counted
from tunedeck.report.interval import over_answers, over_examples, over_seeds
from tunedeck.report.result import Confusion, Interval, Mistake

if TYPE_CHECKING:
    from tunedeck.data.chat import Conversation
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.base import Dataset
    from tunedeck.tasks.classify import Classify, Prediction
    from tunedeck.tasks.generate import Generate

MISTAKES = 10
CHATS = 5
ANSWER_TOKENS = 64


def interval_of(deck: Deck, name: str, dataset: Dataset[Any], metric: str, values: Sequence[float]) -> Interval | None:
    """Over seeds where there are several; else over held-out examples where the metric is a mean over them, else None."""
    if len(values) > 1:
        return over_seeds(values)
    kind = deck.task.kind
    if kind == "classify" and metric == "accuracy":
        size = len(dataset.evaluation)
        return over_answers(round(values[0] * size), size)
    if kind == "generate" and metric == "loss":
        losses = _losses(deck, name, dataset)
        return over_examples([loss for _, loss, _ in losses], [tokens for *_, tokens in losses])
    return None


def confusion_and_mistakes(deck: Deck, name: str, dataset: Dataset[Any]) -> tuple[Confusion | None, tuple[Mistake, ...]]:  # fmt: skip
    """Of the best entry: its confusions where each text has one label, and its worst mistakes; nothing for embeddings."""
    if deck.task.kind == "classify":
        return _of_labels(deck, name, dataset)
    return (None, _of_chats(deck, name, dataset)) if deck.task.kind == "generate" else (None, ())


def _of_labels(deck: Deck, name: str, dataset: Dataset[Any]) -> tuple[Confusion | None, tuple[Mistake, ...]]:
    examples = dataset.evaluation
    answers: list[Prediction] = deck.predict([example.text for example in examples], adapter=name)
    wrong = [
        Mistake(example.text, ", ".join(example.labels), ", ".join(answer.labels), _sureness(example.labels, answer))
        for example, answer in zip(examples, answers, strict=True)
        if set(example.labels) != set(answer.labels)
    ]
    worst = tuple(sorted(wrong, key=lambda mistake: -mistake.score)[:MISTAKES])
    if cast("Classify", deck.task).multi_label:
        return None, worst
    wanted, answered = [example.labels[0] for example in examples], [answer.label for answer in answers]
    return counted(name, deck.label_names(name), wanted, answered), worst


def _sureness(wanted: Sequence[str], answer: Prediction) -> float:
    """The probability of what is most wrong: a label that does not belong, or the absence of one that does."""
    odd = {label: answer.probabilities[label] for label in answer.labels if label not in wanted}
    missing = {label: 1 - answer.probabilities[label] for label in wanted if label not in answer.labels}
    return max([*odd.values(), *([] if odd else missing.values())])


def _of_chats(deck: Deck, name: str, dataset: Dataset[Any]) -> tuple[Mistake, ...]:
    from tunedeck.tasks.sampling import Sampling

    worst = sorted(_losses(deck, name, dataset), key=lambda one: -one[1])[:CHATS]
    asked = [list(chat.as_dicts()[:-1]) for chat, *_ in worst]
    answers = deck.generate(asked, name, Sampling(max_tokens=ANSWER_TOKENS))
    return tuple(
        Mistake("\n".join(turn["content"] for turn in turns), chat.answer, answer, loss)
        for turns, answer, (chat, loss, _) in zip(asked, answers, worst, strict=True)
    )


def _losses(deck: Deck, name: str, dataset: Dataset[Any]) -> list[tuple[Conversation, float, int]]:
    held_out = replace(dataset, train=dataset.evaluation)  # the training side is not looked at
    return cast("Generate", deck.task).course(deck, name, held_out).held_out_losses()


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
