"""Rows of a batch and the adapters they belong to."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tunedeck.methods.routing import Segment, group_rows

names = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=40)


def test_rows_already_in_order_are_left_alone() -> None:
    grouping = group_rows(["a", "a", None])
    assert grouping.segments == (Segment("a", slice(0, 2)), Segment(None, slice(2, 3)))
    assert grouping.order is None
    assert grouping.inverse is None


def test_scattered_rows_are_brought_together_in_order_of_first_appearance() -> None:
    grouping = group_rows(["b", None, "b", "a", None])
    assert [segment.adapter for segment in grouping.segments] == ["b", None, "a"]
    assert grouping.order is not None
    assert grouping.inverse is not None
    assert grouping.order.tolist() == [0, 2, 1, 4, 3]
    assert grouping.inverse.tolist() == [0, 2, 1, 4, 3]


def test_adapters_of_one_kind_stand_side_by_side() -> None:
    grouping = group_rows(["b1", None, "a1", "b2", None, "a2"], lambda name: name and name[0])
    assert [segment.adapter for segment in grouping.segments] == ["b1", "b2", None, "a1", "a2"]
    assert grouping.order is not None
    assert grouping.order.tolist() == [0, 3, 1, 4, 2, 5]


@given(names)
def test_the_inverse_restores_the_callers_order(adapters: list[str | None]) -> None:
    grouping = group_rows(adapters)
    rows = torch.arange(len(adapters))
    if grouping.order is not None:
        assert torch.equal(rows[grouping.order][grouping.inverse], rows)
    assert (grouping.order is None) == (grouping.inverse is None)


@given(names)
def test_the_segments_cover_every_row_once_and_each_adapter_has_one(adapters: list[str | None]) -> None:
    grouping = group_rows(adapters)
    order = range(len(adapters)) if grouping.order is None else grouping.order.tolist()
    covered = [row for segment in grouping.segments for row in range(segment.rows.start, segment.rows.stop)]
    assert covered == list(range(len(adapters)))
    assert len({segment.adapter for segment in grouping.segments}) == len(grouping.segments) == len(set(adapters))
    for segment in grouping.segments:
        assert {adapters[row] for row in list(order)[segment.rows]} == {segment.adapter}
