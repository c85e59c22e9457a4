"""The contrastive loss: hand-computed values, and who is whose negative."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tunedeck.tasks.embed.loss import Relations, contrastive_loss, label_relations, pair_relations


def test_the_loss_of_two_pairs_is_the_one_worked_out_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    relations = pair_relations(["a", "b"], ["x", "y"], [])
    one_way = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2
    other_way = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2
    assert contrastive_loss(scores, relations).item() == pytest.approx(one_way)
    assert contrastive_loss(scores, relations, symmetric=True).item() == pytest.approx((one_way + other_way) / 2)


def test_with_one_positive_each_it_is_cross_entropy_over_positives_and_negatives() -> None:
    scores = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    texts = [f"p{n}" for n in range(6)]
    relations = pair_relations([f"a{n}" for n in range(6)], texts, ["n0", "n1", "n2"])
    assert contrastive_loss(scores, relations).item() == pytest.approx(F.cross_entropy(scores, torch.arange(6)).item())


def test_copies_of_a_positive_and_texts_of_the_same_anchor_are_no_negatives() -> None:
    relations = pair_relations(["a", "b", "a", "c"], ["x", "x", "y", "a"], ["x", "z"])
    assert relations.positives.tolist() == [[row == column for column in range(6)] for row in range(4)]
    assert relations.negatives.int().tolist() == [
        [0, 0, 0, 0, 0, 1],  # x and y belong to a, and the fourth positive is a itself
        [0, 0, 1, 1, 0, 1],
        [0, 0, 0, 0, 0, 1],
        [1, 1, 1, 0, 1, 1],
    ]


def test_texts_of_one_label_are_positives_and_never_negatives() -> None:
    relations = label_relations(["t", "u", "v", "t"], ["red", "red", "blue", "blue"])
    assert relations.positives.int().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    # the first and the last text are copies with other labels: neither
    assert relations.negatives.int().tolist() == [[0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 0]]


def test_one_positive_does_not_push_another_away() -> None:
    scores = torch.tensor([[0.0, 5.0, 4.0, 1.0]], requires_grad=True)
    relations = Relations(torch.tensor([[0, 1, 1, 0]]).bool(), torch.tensor([[0, 0, 0, 1]]).bool())
    loss = contrastive_loss(scores, relations)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-4)) + math.log(1 + math.exp(-3))) / 2, rel=1e-4)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] == 0
    assert (scores.grad[0, 1:3] < 0).all()
    assert scores.grad[0, 3] > 0


def test_anchors_without_positives_or_without_negatives_leave_finite_gradients() -> None:
    scores = torch.zeros(2, 2, requires_grad=True)
    nobody = torch.zeros(2, 2, dtype=torch.bool)
    for relations in (Relations(nobody, ~nobody), Relations(torch.eye(2).bool(), nobody)):
        loss = contrastive_loss(scores, relations, symmetric=True)
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, scores)
        assert gradient.isfinite().all()
