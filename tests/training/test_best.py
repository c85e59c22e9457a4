"""Which of two evaluations a run keeps."""

from __future__ import annotations

from tunedeck.training.best import is_better


def test_equal_accuracies_are_told_apart_by_their_loss() -> None:
    before = {"accuracy": 0.9, "loss": 0.4}
    assert is_better({"accuracy": 0.9, "loss": 0.3}, before, "accuracy")
    assert not is_better({"accuracy": 0.9, "loss": 0.4}, before, "accuracy")
    assert not is_better({"accuracy": 0.8, "loss": 0.1}, before, "accuracy")
    assert is_better({"accuracy": 0.95, "loss": 0.9}, before, "accuracy")


def test_metrics_without_a_loss_keep_the_earlier_of_equals() -> None:
    assert not is_better({"spearman": 0.5}, {"spearman": 0.5}, "spearman")
