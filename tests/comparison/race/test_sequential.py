"""The sequential test: by hand, its error rate by simulation, and its power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunedeck.comparison.race.sequential import MIXTURE, evidence, evidence_of_worse, told_worse, weighted

LEVEL = 0.05


def test_the_evidence_by_hand() -> None:
    # after two wins S = V = 2: (2 exp(c 4 / (2 (1 + 2 c))) - 1) / sqrt(1 + 2 c) with c = 1/4
    found = evidence(np.array([1.0, 1.0, -1.0, -1.0]))
    assert MIXTURE == 0.25
    assert found[1] == pytest.approx((2 * math.exp(1 / 3) - 1) / math.sqrt(1.5))
    assert found[3] == 0  # a tie says nothing


def test_examples_on_which_two_agree_change_nothing() -> None:
    assert evidence(np.array([0.0, 1.0, 0.0, 1.0]))[-1] == evidence(np.array([1.0, 1.0]))[-1]


def test_a_scale_changes_nothing() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 50)
    assert evidence(7 * values) == pytest.approx(evidence(values))


def test_weights_give_the_weighted_mean() -> None:
    assert weighted([1, 0, 1], [1, 2, 5]).mean() == pytest.approx(6 / 8)


@pytest.mark.parametrize("differing", [0.05, 0.3, 1.0])
def test_two_equal_candidates_are_seldom_told_apart_though_every_example_is_looked_at(differing: float) -> None:
    generator = np.random.default_rng(1)
    signs = generator.choice([-1.0, 1.0], (4000, 500)) * (generator.random((4000, 500)) < differing)
    wrong = (evidence(signs).max(axis=-1) >= 1 / LEVEL).mean()
    assert 0 < wrong <= LEVEL


def test_a_fixed_test_looked_at_after_every_example_errs_several_times_as_often() -> None:
    # What the always-valid test is for: the usual 5 % test, repeated.
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (4000, 500))
    z = np.cumsum(signs, axis=-1) / np.sqrt(np.arange(1, 501))
    assert (z[:, 20:] > 1.645).any(axis=-1).mean() > 4 * LEVEL


def test_heavy_tails_do_not_break_it() -> None:
    generator = np.random.default_rng(2)
    losses = generator.lognormal(0, 1, (4000, 400)) - generator.lognormal(0, 1, (4000, 400))
    assert (evidence(losses).max(axis=-1) >= 1 / LEVEL).mean() <= LEVEL


def test_of_twenty_equal_candidates_each_is_seldom_told_worse() -> None:
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(400):
        easy = generator.random(300)  # the same examples are hard for all
        scores = [(generator.random(300) < 0.55 + 0.4 * easy).astype(float) for _ in range(20)]
        wrong += evidence_of_worse(scores[0], scores[1:], 19) >= 1 / LEVEL
    assert wrong / 400 <= LEVEL


def test_of_ten_whose_probabilities_of_the_right_answers_are_equal_each_is_seldom_told_worse() -> None:
    generator = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        easy = generator.random(300)
        chances = [generator.beta(0.2 + 2 * easy, 0.2 + 2 * (1 - easy)) for _ in range(10)]  # mostly near 0 or 1
        wrong += evidence_of_worse(chances[0], chances[1:], 9) >= 1 / LEVEL
    assert wrong / 400 <= LEVEL


def test_ten_points_on_three_hundred_examples_are_mostly_found_and_the_better_stays() -> None:
    generator = np.random.default_rng(4)
    found = 0
    for _ in range(100):
        scores = {
            "good": (generator.random(300) < 0.8).astype(float),
            "bad": (generator.random(300) < 0.65).astype(float),
        }
        told = told_worse(scores, 2, LEVEL)
        found += "bad" in told
        assert "good" not in told
    assert found >= 80
