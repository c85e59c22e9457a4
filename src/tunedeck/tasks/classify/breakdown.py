"""Where a classifier is right and wrong: by label, by pair of labels, by text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tunedeck.core.reliability import Answered, answered
from tunedeck.data.labelled import Example
from tunedeck.tasks.base import Breakdown, LabelMetrics, Mistake
from tunedeck.tasks.classify.prediction import Prediction


def breakdown(labels: Sequence[str], examples: Sequence[Example], predictions: Sequence[Prediction]) -> Breakdown:
    """Break predictions down by label and wrong answer, and by pair of labels where each text has one."""
    pairs = [(example.labels, answer.labels) for example, answer in zip(examples, predictions, strict=True)]
    right = Counter(label for wanted, given in pairs for label in set(wanted) & set(given))
    predicted = Counter(label for _, given in pairs for label in given)
    actual = Counter(label for wanted, _ in pairs for label in wanted)
    single = all(len(wanted) == len(given) == 1 for wanted, given in pairs)
    counts = Counter((wanted[0], given[0]) for wanted, given in pairs) if single else {}
    return Breakdown(
        tuple(_label_metrics(label, right[label], predicted[label], actual[label]) for label in labels),
        tuple(tuple(counts[true, given] for given in labels) for true in labels) if single else (),
        tuple(mistakes(examples, predictions)),
    )


def given_answers(examples: Sequence[Example], predictions: Sequence[Prediction]) -> Answered:
    """Count the labels that are answered, and the right ones among them."""
    given = sum(len(answer.labels) for answer in predictions)
    right = sum(
        len(set(example.labels) & set(answer.labels)) for example, answer in zip(examples, predictions, strict=True)
    )
    return answered(given, right)


def mistakes(examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Mistake]:
    """Return the wrong predictions, the most confident first."""
    wrong = [
        Mistake(
            example.text,
            ", ".join(example.labels),
            ", ".join(answer.labels),
            _confidence(example.labels, answer.labels, answer.probabilities),
        )
        for example, answer in zip(examples, predictions, strict=True)
        if set(example.labels) != set(answer.labels)
    ]
    return sorted(wrong, key=lambda mistake: -mistake.score)


def _label_metrics(label: str, right: int, predicted: int, actual: int) -> LabelMetrics:
    return LabelMetrics(
        label,
        precision=right / predicted if predicted else 0.0,
        recall=right / actual if actual else 0.0,
        f1=2 * right / (predicted + actual) if predicted + actual else 0.0,
        support=actual,
    )


def _confidence(wanted: Sequence[str], given: Sequence[str], probabilities: Mapping[str, float]) -> float:
    """Return the probability of what is most wrong: a label that does not belong, or the absence of one that does."""
    odd = [probabilities[label] for label in given if label not in wanted]
    missing = [1 - probabilities[label] for label in wanted if label not in given]
    return max(odd or missing)
