"""Metrics of scores, and the closed form of ridge regression."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score

from tunedeck.tasks.linear_probe import STRENGTHS, fit_ridge
from tunedeck.tasks.score.metrics import quadratic_kappa, score_metrics


def test_metrics_of_three_scores_by_hand() -> None:
    found = score_metrics(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[1.0], [3.0], [3.0]]), ["a"], None)
    assert found == pytest.approx(
        {
            "mae": 1.0,
            "rmse": (5 / 3) ** 0.5,
            "r2": 1 - 5 / (8 / 3),
            "spearman": 0.8660254,
            "pearson": 0.6933752,
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randint(1, 6, (40, 2), generator=generator).double()
    predicted = wanted + torch.randn(40, 2, generator=generator).double()
    found = score_metrics(predicted, wanted, ["a", "b"], [1, 5])
    levels = predicted.round().clamp(1, 5)
    kappas = [cohen_kappa_score(levels[:, n].int(), wanted[:, n].int(), weights="quadratic") for n in range(2)]
    assert found["r2"] == pytest.approx(r2_score(wanted, predicted))
    assert found["mae"] == pytest.approx(mean_absolute_error(wanted, predicted))
    assert found["mae b"] == pytest.approx(mean_absolute_error(wanted[:, 1], predicted[:, 1]))
    assert found["kappa"] == pytest.approx(sum(kappas) / 2)


def test_scores_that_agree_have_a_kappa_of_one_and_constants_none() -> None:
    series = torch.tensor([1.0, 2.0, 5.0])
    assert quadratic_kappa(series, series) == pytest.approx(1)
    assert quadratic_kappa(torch.full((3,), 2.0), series) == pytest.approx(0, abs=1e-6)
    assert quadratic_kappa(torch.ones(3), torch.ones(3)) == 1


@pytest.mark.parametrize("bias", [True, False])
def test_ridge_is_the_minimum_at_the_strength_that_leaving_one_out_chooses(bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 2 + torch.randn(25, 6, generator=generator)
    y = x @ torch.randn(6, 2, generator=generator) + 0.7 * torch.randn(25, 2, generator=generator)
    head = fit_ridge(x, y, bias=bias)
    scale = (x - x.mean(0) if bias else x).square().mean().sqrt()

    def solution(rows: torch.Tensor, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, wanted = (x[rows] / scale).double(), y[rows].double()
        if bias:
            inputs = torch.cat([inputs, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
        penalty = len(x) * strength * torch.eye(inputs.shape[1], dtype=torch.float64)
        if bias:
            penalty[-1, -1] = 0
        found = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ wanted)
        return found[:6].T / scale, found[6] if bias else torch.zeros(2)

    def left_out(strength: float) -> float:
        errors = []
        for row in range(25):
            weight, offset = solution(torch.tensor([one for one in range(25) if one != row]), strength)
            errors.append((y[row] - weight @ x[row].double() - offset).square().mean())
        return torch.stack(errors).mean().item()

    assert head.strength == min(STRENGTHS, key=left_out)
    weight, offset = solution(torch.arange(25), head.strength)
    assert torch.allclose(head.weight.double(), weight, atol=1e-5)
    assert torch.allclose(head.bias.double(), offset.double(), atol=1e-4)


def test_ridge_of_fewer_rows_than_numbers_is_finite_and_near_them() -> None:
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    head = fit_ridge(x, x[:, :1])
    assert torch.isfinite(head.weight).all()
    assert (head(x) - x[:, :1]).abs().mean() < x[:, :1].std()
