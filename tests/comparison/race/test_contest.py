"""Who goes on, who stops and why, when a race is over, and how often it errs: on made-up learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tunedeck.comparison.race.contest import Answer, Ask, Contest, Ladder, RaceOutcome, ladder_of

LADDER = ladder_of(steps=270, examples_per_step=32, held_out=600)
Curves = Mapping[str, Callable[[float], float]]
"""Accuracy by share of a whole run."""


def played(contest: Contest, answer: Callable[[Ask], Answer]) -> tuple[RaceOutcome, list[Ask]]:
    """Answer everything that a contest asks."""
    asked: list[Ask] = []
    asks = contest.asks()
    try:
        ask = next(asks)
        while True:
            asked.append(ask)
            ask = asks.send(answer(ask))
    except StopIteration as end:
        return end.value, asked


def answering(curves: Curves, seed: int = 0, noise: float = 0.2) -> Callable[[Ask], Answer]:
    """Answers of candidates that learn as the curves say; the same examples are hard for all. A run takes 100 s."""
    hard = np.random.default_rng(seed).random(LADDER.rows[-1])
    at, done = [0.0], dict.fromkeys(curves, 0.0)

    def answer(ask: Ask) -> Answer:
        share = LADDER.shares[ask.rung]
        own = np.random.default_rng([seed, list(curves).index(ask.name), ask.rung]).random(LADDER.rows[-1])
        right = (1 - noise) * hard + noise * own < curves[ask.name](share)
        train_s = 100 * (share - done[ask.name])
        done[ask.name] = share
        at[0] += train_s + 0.5
        return Answer(right[: LADDER.rows[ask.rung]].astype(float), train_s + 0.5, train_s, at[0])

    return answer


def learning(end: float, start: float = 0.5) -> Callable[[float], float]:
    return lambda share: start + (end - start) * share**0.25


def sizes(curves: Curves) -> dict[str, int]:
    return {name: 1000 + number for number, name in enumerate(curves)}


THIRTY: dict[str, Callable[[float], float]] = {f"c{n}": learning(0.62 + 0.006 * n) for n in range(30)}
"""The best last: the worst order for a race."""


def test_early_rungs_look_at_half_as_many_examples_as_they_train_on() -> None:
    assert list(LADDER.shares) == [1 / 27, 1 / 9, 1 / 3, 1]
    assert list(LADDER.rows) == [160, 480, 600, 600]
    assert ladder_of(steps=10, examples_per_step=32, held_out=600) == Ladder((1 / 9, 1 / 3, 1.0), (32, 53, 600))


def test_of_thirty_candidates_a_quarter_goes_on_and_two_are_trained_to_the_end_at_most() -> None:
    contest = Contest(sizes(THIRTY), LADDER)
    outcome, asked = played(contest, answering(THIRTY))
    counts = [sum(ask.rung == rung for ask in asked) for rung in range(4)]
    assert counts[0] == 30
    assert counts[1] <= 7
    assert counts[2] <= 2
    assert counts[3] <= 2
    cost = sum(answer.seconds for answer in contest.answers.values()) / (30 * 100)
    assert cost < 0.15
    assert outcome.winner is not None
    assert THIRTY[outcome.winner](1) > 0.77  # the best reaches 0.794
    assert contest.rung_of(outcome.winner) == 3
    assert set(contest.stopped) == set(THIRTY) - {outcome.winner}
    assert {stop.reason for stop in contest.stopped.values()} >= {"worse", "paused"}


def test_a_race_is_the_same_when_what_is_known_is_answered_again() -> None:
    first = Contest(sizes(THIRTY), LADDER)
    outcome, asked = played(first, answering(THIRTY))
    again = Contest(sizes(THIRTY), LADDER)
    assert played(again, first.answers.__getitem__) == (outcome, asked)
    assert again.stopped == first.stopped


def test_until_clear_takes_on_all_that_are_not_told_worse() -> None:
    curves = {"a": learning(0.80), "b": learning(0.805), "c": learning(0.81), "d": learning(0.55)}
    stable, clear = Contest(sizes(curves), LADDER), Contest(sizes(curves), LADDER, until="clear")
    played(stable, answering(curves))
    outcome, asked = played(clear, answering(curves))
    assert sum(ask.rung == 1 for ask in asked) > 2
    assert clear.stopped["d"].reason == "worse"
    assert not any(stop.reason == "paused" for stop in clear.stopped.values())
    assert outcome.winner in ("a", "b", "c")


def test_it_ends_where_the_leader_is_also_the_smallest() -> None:
    curves = {"small": learning(0.85), "large": learning(0.84), "larger": learning(0.84)}
    outcome, asked = played(Contest(sizes(curves), LADDER, until="clear"), answering(curves, noise=0))
    assert outcome == RaceOutcome("small", "smaller")
    assert [ask for ask in asked if ask.rung > 1] == [Ask("small", 2), Ask("small", 3)]  # it alone is finished


def test_of_those_within_one_standard_error_of_the_best_the_first_in_the_order_is_ahead() -> None:
    even = np.arange(LADDER.rows[-1]) % 2.0
    # both are right in about half of their answers, the second in four more: 0.3 standard errors on the first rung
    right = {"first": even, "second": np.where(np.arange(len(even)) < 8, 1.0, 1 - even), "bad": 0 * even}

    def answer(ask: Ask) -> Answer:
        return Answer(right[ask.name][: LADDER.rows[ask.rung]], 1.0, 1.0, 1.0)

    for order in (["first", "second", "bad"], ["bad", "second", "first"]):
        outcome, _ = played(Contest(dict.fromkeys(order, 1000), LADDER), answer)
        assert outcome.winner == next(name for name in order if name != "bad")


def test_the_order_does_not_matter_where_many_examples_tell_candidates_apart() -> None:
    curves = {"first": learning(0.7), "better": learning(0.9)}
    for order in (["first", "better"], ["better", "first"]):
        contest = Contest(dict.fromkeys(order, 1000), LADDER)
        assert played(contest, answering(curves))[0].winner == "better"


def test_of_two_that_are_right_alike_the_one_is_ahead_that_gives_right_answers_more_probability() -> None:
    chances = {"sure": 0.8, "small": 0.6}

    def answer(ask: Ask) -> Answer:
        rows = LADDER.rows[ask.rung]
        return Answer(np.ones(rows), 1.0, 1.0, 1.0, chances=np.full(rows, chances[ask.name]))

    assert played(Contest({"small": 5, "sure": 9}, LADDER), answer)[0].winner == "sure"


def test_the_top_rung_is_raised_while_the_ranking_changes() -> None:
    # the order of the leaders turns at every rung, and the leader is never the smallest
    curves: dict[str, Callable[[float], float]] = {
        "small": learning(0.6, 0.6),
        "a": lambda share: {1 / 27: 0.75, 1 / 9: 0.79, 1 / 3: 0.80, 1.0: 0.85}[share],
        "b": lambda share: {1 / 27: 0.76, 1 / 9: 0.78, 1 / 3: 0.81, 1.0: 0.84}[share],
    }
    outcome, asked = played(Contest(sizes(curves), LADDER), answering(curves, noise=0))
    assert outcome == RaceOutcome("a", "top")
    assert {Ask("a", 3), Ask("b", 3)} <= set(asked)


def test_one_that_was_set_aside_is_taken_up_again_for_one_that_fails() -> None:
    curves = {f"c{n}": learning(0.9 - 0.01 * n) for n in range(6)}
    plain = answering(curves, noise=0)

    def answer(ask: Ask) -> Answer:
        found = plain(ask)
        if ask in (Ask("c0", 1), Ask("c1", 1)):
            return Answer(found.scores[:0], 1.0, 1.0, found.at_s, failed="the loss is nan")
        return found

    contest = Contest(sizes(curves), LADDER)
    outcome, asked = played(contest, answer)
    assert contest.stopped["c0"].reason == contest.stopped["c1"].reason == "failed"
    assert sum(ask.rung == 1 for ask in asked) == 4  # two places, two failures, two taken up again
    assert outcome.winner in ("c2", "c3", "c4")


def test_where_all_fail_there_is_no_winner() -> None:
    def fail(ask: Ask) -> Answer:
        return Answer(np.zeros(0), 1.0, 1.0, 1.0, failed="the loss is nan")

    contest = Contest({"a": 1, "b": 2}, LADDER)
    assert played(contest, fail)[0] == RaceOutcome(None, "failed")


@pytest.mark.parametrize("limit_s", [60.0, 150.0, 300.0, 1000.0])
def test_a_limit_admits_fewer_candidates_and_the_winner_is_still_trained_to_its_end(limit_s: float) -> None:
    contest = Contest(sizes(THIRTY), LADDER, limit_s=limit_s)
    outcome, asked = played(contest, answering(THIRTY))
    spent = max(answer.at_s for answer in contest.answers.values())
    assert spent <= max(limit_s, 100 + 4 * 0.5)
    assert outcome.winner is not None
    if limit_s > 110:
        assert contest.rung_of(outcome.winner) == 3
    entered = sum(ask.rung == 0 for ask in asked)
    assert (entered == 30) == (limit_s == 1000)
    assert [ask.name for ask in asked[:entered]] == list(THIRTY)[:entered]  # in the order given
    left_out = [name for name, stop in contest.stopped.items() if stop.reason == "not started"]
    assert left_out == list(THIRTY)[entered:]


def test_the_best_at_every_rung_is_seldom_told_worse_at_any() -> None:
    wrong = 0
    for seed in range(80):
        curves = {f"c{n}": learning(0.75 if n else 0.751) for n in range(6)}
        contest = Contest(sizes(curves), LADDER, until="clear")
        played(contest, answering(curves, seed=seed))
        wrong += contest.stopped.get("c0") is not None and contest.stopped["c0"].reason == "worse"
    assert wrong / 80 <= contest.alpha
