"""Confidence intervals by hand."""

from __future__ import annotations

import math

import pytest

from tunedeck.comparison.report.interval import of_median, over_examples, over_seeds
from tunedeck.core.student_t import T_95, t_95


def test_over_seeds_it_is_the_mean_and_students_t_times_the_standard_error() -> None:
    # mean 0.74, s = 0.02, two degrees of freedom: 4.303 * 0.02 / sqrt(3)
    interval = over_seeds([0.72, 0.74, 0.76])
    half = 4.303 * 0.02 / math.sqrt(3)
    assert (interval.low, interval.high) == (pytest.approx(0.74 - half), pytest.approx(0.74 + half))
    assert (interval.source, interval.count) == ("seeds", 3)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(31, 2.040), (40, 2.021), (60, 2.000), (99, 1.984), (120, 1.980), (10**6, 1.960)]
)
def test_beyond_thirty_degrees_of_freedom_students_t_is_that_of_the_tables(freedom: int, expected: float) -> None:
    assert round(t_95(freedom), 3) == expected
    assert t_95(freedom) < T_95[-1]


def test_of_a_median_it_lies_between_the_ranks_of_the_sign_test() -> None:
    # 15 values: P(Binomial(15, 1/2) <= 3) = 0.0176, P(... <= 4) = 0.0592, so the 4th from below and from above
    interval = of_median([float(value) for value in range(15, 0, -1)])
    assert (interval.low, interval.high, interval.source, interval.count) == (4.0, 12.0, "rounds", 15)
    assert (of_median([3.0, 1.0, 2.0]).low, of_median([3.0, 1.0, 2.0]).high) == (1.0, 3.0)


def test_seeds_that_agree_leave_no_width() -> None:
    interval = over_seeds([0.5, 0.5])
    assert interval.low == interval.high == 0.5


def test_over_right_answers_it_is_close_to_the_binomial_one() -> None:
    answers = [1.0] * 750 + [0.0] * 250
    interval = over_examples(answers)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 1000)
    assert interval.low == pytest.approx(0.75 - half, abs=0.002)
    assert interval.high == pytest.approx(0.75 + half, abs=0.002)
    assert interval.source == "examples"
    assert over_examples(answers) == interval


def test_where_all_are_right_it_still_has_the_width_of_the_rule_of_three() -> None:
    right, wrong = over_examples([1.0] * 60), over_examples([0.0] * 60)
    assert (right.low, right.high) == (pytest.approx(0.95), 1.0)
    assert (wrong.low, wrong.high) == (0.0, pytest.approx(0.05))
    assert over_examples([1.0]).low == 0.0


def test_weights_count_in_the_mean() -> None:
    heavy = over_examples([1.0, 0.0] * 500, [3.0, 1.0] * 500)
    assert (heavy.low + heavy.high) / 2 == pytest.approx(0.75, abs=0.01)
