"""Precision, recall and F1 of entities against seqeval's, and errors by kind against cases worked out by hand."""

from __future__ import annotations

import random

import pytest

from tunedeck.core.tagging import runs_of
from tunedeck.tasks.tag.metrics import Score, errors_of, score_of
from tunedeck.tasks.tag.reading import Span

PER, PARIS = Span(0, 6, "PER"), Span(14, 19, "LOC")


def random_tags(chooser: random.Random, scheme: str) -> list[list[str]]:
    tags = ["O", "O", *(f"{prefix}-{kind}" for prefix in scheme for kind in ("PER", "LOC", "ORG"))]
    return [[chooser.choice(tags) for _ in range(chooser.randint(1, 12))] for _ in range(20)]


def spans(tags: list[list[str]]) -> list[list[Span]]:
    return [[Span(*run) for run in runs_of(own)] for own in tags]


@pytest.mark.parametrize("scheme", ["BI", "BIES", "I"])
def test_metrics_are_those_of_seqeval_on_random_tags(scheme: str) -> None:
    oracle = pytest.importorskip("seqeval.metrics")
    chooser = random.Random(scheme)
    for _ in range(30):
        wanted, found = random_tags(chooser, scheme), random_tags(chooser, scheme)
        found = [(own + ["O"] * len(tags))[: len(tags)] for own, tags in zip(found, wanted, strict=True)]
        score = score_of(spans(wanted), spans(found))
        report = oracle.classification_report(wanted, found, output_dict=True, zero_division=0)
        for label, counts in (*score.by_label.items(), ("micro avg", score.total)):
            expected = report.get(label)
            if expected is None:  # found but not wanted by any text
                assert counts.wanted == 0
                continue
            assert counts.precision == pytest.approx(expected["precision"])
            assert counts.recall == pytest.approx(expected["recall"])
            assert counts.f1 == pytest.approx(expected["f1-score"])
            assert counts.wanted == expected["support"]


def test_metrics_of_three_texts_are_those_worked_out_by_hand() -> None:
    # right: PER; missed: LOC; invented: LOC; 1 of 2 found is right, 1 of 2 wanted is found
    score = score_of([[PER], [PARIS], []], [[PER], [], [PARIS]])
    assert (score.total.precision, score.total.recall, score.total.f1) == (0.5, 0.5, 0.5)
    assert (score.by_label["PER"].f1, score.by_label["LOC"].f1) == (1.0, 0.0)
    assert score.errors == {"missed": 1, "invented": 1}


def test_nothing_wanted_and_nothing_found_is_zero_and_no_error() -> None:
    score = score_of([[]], [[]])
    assert (score.total.precision, score.total.recall, score.total.f1) == (0.0, 0.0, 0.0)
    assert not score.errors


@pytest.mark.parametrize(
    ("wanted", "found", "kinds"),
    [
        ([PER], [Span(0, 6, "ORG")], ["wrong_label"]),
        ([PER], [Span(0, 10, "PER")], ["wrong_border"]),
        ([PER], [Span(2, 10, "ORG")], ["wrong_label"]),
        ([PER], [Span(6, 10, "PER")], ["invented", "missed"]),
        ([PER], [Span(0, 3, "PER"), Span(3, 6, "PER")], ["invented", "wrong_border"]),
        ([PER, PARIS], [Span(0, 19, "PER")], ["missed", "wrong_border"]),
        ([PER, PARIS], [PARIS, PER], []),
    ],
)
def test_errors_are_told_apart(wanted: list[Span], found: list[Span], kinds: list[str]) -> None:
    assert sorted(kind for kind, _, _ in errors_of(wanted, found)) == kinds


def test_every_entity_that_is_not_right_is_in_exactly_one_error() -> None:
    chooser = random.Random(1)
    for _ in range(50):
        wanted, found = spans(random_tags(chooser, "BI")), spans(random_tags(chooser, "BI"))
        score: Score = score_of(wanted, found)
        both = score.errors["wrong_border"] + score.errors["wrong_label"]
        assert score.errors["missed"] + both == score.total.wanted - score.total.right
        assert score.errors["invented"] + both == score.total.found - score.total.right
