"""The Pareto front, by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunedeck.comparison.report.confusion import label_cells
from tunedeck.comparison.report.figures import front
from tunedeck.comparison.report.reliability import reliability_figure
from tunedeck.comparison.report.values import Confusion
from tunedeck.core.reliability import Bin, Reliability, TemperatureScaling


def test_the_front_is_what_nothing_beats_in_both() -> None:
    # (size, accuracy): 0 is beaten by 2, 3 by 1, and 4 equals 2 in quality but is larger
    points = [(20, 0.60), (300, 0.75), (10, 0.62), (400, 0.74), (50, 0.62), (900, 0.80)]
    assert front(points) == [2, 1, 5]


def test_where_less_is_better_the_front_turns() -> None:
    assert front([(1, 2.0), (2, 1.5), (3, 1.7)], higher_is_better=False) == [0, 1]


def test_of_equal_points_the_first_stands() -> None:
    assert front([(1, 0.5), (1, 0.5)]) == [0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_matched_or_beaten_by_one_on_it(points: list[tuple[float, float]]) -> None:
    best = front(points)
    for number, (cost, quality) in enumerate(points):
        beaten = any(points[b][0] <= cost and points[b][1] >= quality for b in best)
        assert beaten, number
    for one in best:
        assert not any(
            points[other][0] <= points[one][0] and points[other][1] >= points[one][1] for other in best if other != one
        )


def test_the_reliability_figure_says_both_errors() -> None:
    before, after = (
        Reliability(error, 0.2, (Bin(30, 0.4, 0.5), Bin(70, 0.9, 0.9 - error))) for error in (0.125, 0.031)
    )
    figure = reliability_figure({"lora": TemperatureScaling(1.7, before, after)})
    assert "0.125 before, 0.031 after" in figure.alt
    assert figure.png.startswith(b"\x89PNG")


def test_every_label_has_its_metrics_the_most_frequent_first() -> None:
    confusion = Confusion("lora", ("a", "b", "never"), ((1, 1, 0), (0, 8, 0), (0, 0, 0)))
    assert label_cells(confusion) == [
        ["b", "0.889", "1.000", "0.941", "8"],
        ["a", "1.000", "0.500", "0.667", "2"],
        ["never", "0.000", "0.000", "0.000", "0"],
    ]
