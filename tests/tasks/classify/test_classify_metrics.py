"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tunedeck.tasks.classify.metrics import classification_metrics, targets_of


def test_metrics_of_four_examples_are_those_worked_out_by_hand() -> None:
    names = ("a", "b", "c")
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 9, 0]])
    found = classification_metrics(logits, targets_of(names, [("a",), ("b",), ("b",), ("b",)], False), False)
    # a: 1 right, 1 false alarm -> 2/3. b: 2 right, 1 missed -> 4/5. c neither occurs nor is predicted.
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["micro_f1"] == pytest.approx(3 / 4)
    right, wrong = math.log(1 + 2 * math.exp(-9)), 9 + math.log(1 + 2 * math.exp(-9))
    assert found["loss"] == pytest.approx((3 * right + wrong) / 4, rel=1e-5)


def test_a_multi_label_example_is_right_when_all_its_labels_are() -> None:
    logits = torch.tensor([[5.0, 5.0], [5.0, -5.0], [-5.0, -5.0]])
    found = classification_metrics(logits, targets_of(("a", "b"), [("a", "b"), ("a", "b"), ()], True), True)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
