"""Per-label metrics and confusions are scikit-learn's; mistakes come with the most confident first."""

from __future__ import annotations

import random

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tunedeck.data.labelled import Example
from tunedeck.tasks.classify.breakdown import breakdown
from tunedeck.tasks.classify.prediction import Prediction

NAMES = ("a", "b", "c", "never")


def answer(*labels: str, **chances: float) -> Prediction:
    probabilities = {name: chances.get(name, 0.0) for name in NAMES}
    best = max(probabilities, key=probabilities.__getitem__)
    return Prediction(best, probabilities[best], probabilities, labels)


def test_labels_and_confusions_are_those_of_scikit_learn() -> None:
    source = random.Random(0)
    true, given = source.choices(NAMES[:3], k=60), source.choices(NAMES[:2], k=60)
    examples = [Example(str(row), (label,)) for row, label in enumerate(true)]
    found = breakdown(NAMES, examples, [answer(label) for label in given])
    expected = precision_recall_fscore_support(true, given, labels=NAMES, zero_division=0)
    np.testing.assert_allclose(
        [(one.precision, one.recall, one.f1, one.support) for one in found.labels], np.transpose(expected)
    )
    assert found.confusion == tuple(map(tuple, confusion_matrix(true, given, labels=NAMES).tolist()))
    assert len(found.mistakes) == sum(a != b for a, b in zip(true, given, strict=True))


def test_labels_of_texts_with_several_are_those_of_scikit_learn() -> None:
    source = random.Random(1)
    true, given = (source.choices(((), ("a",), ("b", "c"), ("a", "b", "c")), k=60) for _ in range(2))
    examples = [Example(str(row), labels) for row, labels in enumerate(true)]
    found = breakdown(NAMES, examples, [answer(*labels) for labels in given])
    rows = [[[name in labels for name in NAMES] for labels in side] for side in (true, given)]
    expected = precision_recall_fscore_support(*map(np.array, rows), zero_division=0)
    np.testing.assert_allclose(
        [(one.precision, one.recall, one.f1, one.support) for one in found.labels], np.transpose(expected)
    )
    assert found.confusion == ()


def test_the_most_confident_mistake_comes_first() -> None:
    examples = [Example("unsure", ("a",)), Example("right", ("a",)), Example("sure", ("a",)), Example("missed", ("c",))]
    answers = [answer("b", b=0.5), answer("a", a=1.0), answer("b", b=0.9), answer(c=0.3)]
    found = breakdown(NAMES, examples, answers).mistakes
    assert [(one.text, one.wanted, one.answered, round(one.score, 6)) for one in found] == [
        ("sure", "a", "b", 0.9),
        ("missed", "c", "", 0.7),
        ("unsure", "a", "b", 0.5),
    ]
