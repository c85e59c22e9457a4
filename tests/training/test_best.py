"""Which of two evaluations a run keeps."""

from __future__ import annotations

from tunedeck.training.state import is_better

LOSSES = frozenset({"loss", "perplexity"})


def test_equal_accuracies_are_told_apart_by_their_loss() -> None:
    before = {"accuracy": 0.9, "loss": 0.4}
    assert is_better({"accuracy": 0.9, "loss": 0.3}, before, "accuracy", LOSSES)
    assert not is_better({"accuracy": 0.9, "loss": 0.4}, before, "accuracy", LOSSES)
    assert not is_better({"accuracy": 0.8, "loss": 0.1}, before, "accuracy", LOSSES)
    assert is_better({"accuracy": 0.95, "loss": 0.9}, before, "accuracy", LOSSES)


def test_metrics_without_a_loss_keep_the_earlier_of_equals() -> None:
    assert not is_better({"spearman": 0.5}, {"spearman": 0.5}, "spearman", LOSSES)


def test_a_metric_that_is_better_when_lower_is_compared_that_way() -> None:
    assert is_better({"perplexity": 7.0, "loss": 2.0}, {"perplexity": 8.0, "loss": 1.9}, "perplexity", LOSSES)
    assert not is_better({"perplexity": 9.0, "loss": 1.8}, {"perplexity": 8.0, "loss": 1.9}, "perplexity", LOSSES)
