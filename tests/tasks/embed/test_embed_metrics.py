"""Retrieval and similarity metrics against numbers worked out by hand and against scipy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.tasks.correlation import correlations
from tunedeck.tasks.embed.metrics import mean_of, retrieval_metrics


def test_retrieval_metrics_of_two_queries_are_those_worked_out_by_hand() -> None:
    # ranks of the relevant documents: query 1 at 1 and 3 (two of two), query 2 at 2 (one of one)
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.2, 0.9, 0.5, 0.1]])
    relevant = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 0]]).bool()
    found = retrieval_metrics(scores, relevant)
    assert found["recall@1"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["recall@5"] == 1.0
    assert found["precision@1"] == pytest.approx(1 / 2)
    assert found["precision@5"] == pytest.approx((2 / 5 + 1 / 5) / 2)
    assert found["mrr"] == pytest.approx((1 + 1 / 2) / 2)
    first = (1 + 1 / 2) / (1 + 1 / math.log2(3))
    assert found["ndcg@10"] == pytest.approx((first + 1 / math.log2(3)) / 2)


def test_a_query_without_a_relevant_document_does_not_count() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    found = retrieval_metrics(scores, torch.tensor([[True, False], [False, False]]))
    assert found["mrr"] == found["ndcg@10"] == found["recall@1"] == 1.0


def test_more_than_ten_relevant_documents_can_fill_the_first_ten() -> None:
    found = retrieval_metrics(torch.arange(30.0).flip(0)[None], torch.arange(30)[None] < 15)
    assert found["ndcg@10"] == pytest.approx(1.0)
    assert found["recall@10"] == pytest.approx(10 / 15)


def test_groups_of_queries_weigh_as_many_as_they_are() -> None:
    assert mean_of([(1, {"mrr": 1.0}), (3, {"mrr": 0.2})]) == {"mrr": pytest.approx(0.4)}


def test_correlations_are_those_worked_out_by_hand() -> None:
    found = correlations([1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 4.0])
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    # deviations (-1.75, -.75, .25, 2.25) and (-1.5, .5, -.5, 1.5): 5.5 / sqrt(8.75 * 5)
    assert found["pearson"] == pytest.approx(5.5 / math.sqrt(8.75 * 5))
    assert correlations([1.0, 1.0], [1.0, 2.0]) == {"spearman": 0.0, "pearson": 0.0}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_correlations_are_scipys_with_ties_too(points: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = [float(a) for a, _ in points], [float(b) for _, b in points]
    if len(set(x)) > 1 and len(set(y)) > 1:
        found = correlations(x, y)
        assert found["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
        assert found["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
