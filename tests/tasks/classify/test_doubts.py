from __future__ import annotations

import torch

from tunedeck.tasks.classify.doubts import Doubts, Point, doubts, outlook


def clusters(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around three corners, far apart, and which corner."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(rows) % 3
    return torch.eye(8)[targets] * 4 + torch.randn(rows, 8, generator=generator) * 0.3, targets


def test_the_label_with_the_lowest_probability_comes_first() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.05, 0.05, 0.9]])
    assert Doubts(probabilities, torch.tensor([0, 2, 1]), ()).ranked() == [2, 1, 0]


def test_flipped_labels_come_first_with_their_true_label() -> None:
    vectors, truth = clusters(150)
    targets = truth.clone()
    wrong = [5, 40, 77, 111, 149]
    targets[wrong] = (truth[wrong] + 1) % 3
    found = doubts(vectors, targets, 3)
    assert sorted(found.ranked()[:5]) == wrong
    assert [found.suggested(row) for row in wrong] == truth[wrong].tolist()


def test_the_curve_rises_to_all_rows_and_holds_the_accuracy_in_its_interval() -> None:
    vectors, targets = clusters(300)
    curve = doubts(vectors, targets, 3).curve
    assert [point.rows for point in curve] == [24, 48, 120, 240]
    assert all(point.low <= point.accuracy <= point.high for point in curve)
    assert curve[-1].accuracy > 0.95


def test_the_outlook_is_what_the_last_doubling_brought() -> None:
    rising = [Point(100, 0.70, 0.69, 0.71), Point(200, 0.73, 0.72, 0.74)]
    assert outlook(rising) == "twice the data would bring about 3.0 points of accuracy, as the last doubling did"
    flat = [Point(100, 0.73, 0.70, 0.76), Point(200, 0.731, 0.70, 0.76)]
    assert "hardly bring anything" in outlook(flat)
