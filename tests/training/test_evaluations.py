"""When a run is evaluated, and what it says at its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tunedeck as td
from tunedeck.core.run_length import planned_evaluations
from tunedeck.training.evaluations import Evaluations
from tunedeck.training.state import RunState


def evaluated(
    evaluations: Evaluations, steps: int, time_share: Callable[[int], float] = lambda step: 0.0
) -> tuple[list[int], RunState]:
    """The steps after which a run is evaluated, and its state at the end."""
    state, found = RunState(), []
    for step in range(1, steps + 1):
        state.steps = step
        if evaluations.due(state, time_share(step)):
            state.evaluated_step, state.evaluations = step, state.evaluations + 1
            found.append(step)
    return found, state


@pytest.mark.parametrize(
    ("settings", "epochs", "steps_per_epoch", "held_out_ratio", "expected"),
    [
        ({}, 1, 100, 1 / 9, [25, 50, 75, 100]),
        ({}, 2, 63, 1 / 4, [32, 63, 95, 126]),
        ({}, 6, 10, 1 / 4, [10, 20, 30, 40, 50, 60]),
        ({}, 40, 10, 1 / 4, [40, 80, 120, 160, 200, 240, 280, 320, 360, 400]),
        ({"early_stopping_patience": 5}, 1, 100, 1 / 9, [25, 50, 75, 100]),
        ({"eval_steps": 40}, 1, 100, 1 / 9, [40, 80, 100]),
        ({"eval_steps": 40}, 1, 100, 10, [40, 80, 100]),
        ({"early_stopping_patience": 0}, 3, 10, 1 / 9, [10, 20, 30]),
        ({"early_stopping_patience": None}, 3, 10, 10, [10, 20, 30]),
        ({}, 1, 100, 1 / 4, [50, 100]),
        ({}, 1, 100, 10, [100]),
        ({}, 1, 2, 1 / 9, [1, 2]),
        ({}, 1, 100, 0, []),
    ],
    ids=[
        "one epoch",
        "two epochs",
        "six epochs",
        "many epochs",
        "more patience",
        "steps set by hand",
        "steps set by hand, whatever they take",
        "never early",
        "never early, null",
        "a fifth held out",
        "far more held out than trained on",
        "two steps",
        "nothing held out",
    ],
)
def test_evaluations_are_spread_evenly_and_bounded_by_what_they_take(
    settings: dict[str, int], epochs: int, steps_per_epoch: int, held_out_ratio: float, expected: list[int]
) -> None:
    total = epochs * steps_per_epoch
    evaluations = Evaluations(td.TrainingSettings(**settings), total, steps_per_epoch, held_out_ratio)
    assert evaluated(evaluations, total)[0] == expected
    if not settings:
        assert planned_evaluations(epochs, total, held_out_ratio) == len(expected)


def test_a_run_that_its_minutes_end_is_evaluated_evenly_over_its_time() -> None:
    evaluations = Evaluations(td.TrainingSettings(max_minutes=1), 3 * 10**6, 50, 1 / 9)
    assert evaluated(evaluations, 200, lambda step: step / 200)[0] == list(range(20, 201, 20))


def test_fewer_evaluations_than_usual_are_told_at_the_end() -> None:
    few = Evaluations(td.TrainingSettings(), 100, 100, 1 / 4)
    _, state = evaluated(few, 100)
    assert str(few.note(state)).startswith("evaluations: 2 instead of 4, because many examples are held out")
    for settings, ratio in (({}, 1 / 9), ({"eval_steps": 50}, 1 / 4), ({"early_stopping_patience": 0}, 1 / 4)):
        usual = Evaluations(td.TrainingSettings(**settings), 100, 100, ratio)
        _, state = evaluated(usual, 100)
        assert usual.note(state) is None
