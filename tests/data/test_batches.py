"""Length batches: every example once, little padding, the same on every machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunedeck.data.batches import balancing_weights, length_batches


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 5))
def test_every_example_comes_once(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = length_batches(lengths, batch_size, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert batches == length_batches(lengths, batch_size, seed)


def test_neighbours_in_length_share_a_batch_and_epochs_differ() -> None:
    lengths = [row % 60 + 1 for row in range(600)]
    batches = length_batches(lengths, 30, seed=0)
    widest = max(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in batches)
    assert widest <= 3
    assert batches != length_batches(lengths, 30, seed=1)


def test_balanced_batches_draw_every_label_equally_often() -> None:
    labels = [("frequent" if row < 990 else "rare",) for row in range(1000)]
    batches = length_batches([5] * 1000, 10, 0, balancing_weights(labels))
    rows = [row for batch in batches for row in batch]
    assert len(rows) == 1000
    assert 450 < sum(row >= 990 for row in rows) < 550
    assert batches == length_batches([5] * 1000, 10, 0, balancing_weights(labels))


def test_an_example_of_several_labels_has_the_weight_of_its_rarest() -> None:
    assert balancing_weights([("a", "b"), ("a",), ("a",), ()]) == [1.0, 1 / 3, 1 / 3, 1.0]
