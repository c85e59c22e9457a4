"""The fastest of several rounds of the same work."""

from __future__ import annotations

import itertools

import pytest

from tunedeck.core.measurement import fastest_s


@pytest.mark.parametrize(("least_s", "rounds"), [(0.0, 3), (10.0, 5)])
def test_there_are_more_rounds_until_they_have_taken_long_enough(
    least_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.chain.from_iterable((10.0 * at, 10.0 * at + took) for at, took in enumerate([3, 1, 2, 2, 2, 2]))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    done: list[int] = []
    assert fastest_s(lambda: done.append(1), rounds=3, least_s=least_s) == 1.0
    assert len(done) == 1 + rounds
