"""The closed-form head: the optimum of a penalised logistic regression, its strength by cross-validation."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

from tunedeck.tasks import linear_probe
from tunedeck.tasks.linear_probe import STRENGTHS, fit_linear_head


def separable(rows: int, labels: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of 16 numbers around a centre for each label, far from zero, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(labels, 16, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(rows) % labels
    return 5 + centres[targets] + noise * torch.randn(rows, 16, generator=generator), targets


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_minimum_of_loss_and_penalty(bias: bool) -> None:
    vectors, targets = separable(120, 3, noise=1.0)
    head = fit_linear_head(vectors, targets, 3, multi_label=False, bias=bias)
    centre = vectors.mean(0) if bias else torch.zeros(16)
    scale = (vectors - centre).square().mean().sqrt()
    weight, offset = (head.weight * scale).double(), (head.bias + head.weight @ centre).double()
    weight.requires_grad_(True)
    offset.requires_grad_(True)
    x = ((vectors - centre) / scale).double()
    loss = torch.nn.functional.cross_entropy(x @ weight.T + offset, targets) + head.strength / 2 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 1e-4
    assert bool(head.bias.any()) == bias
    if bias:
        assert offset.grad is not None
        assert offset.grad.abs().max() < 1e-4


def test_little_is_computed_on_one_thread_and_much_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []
    found = linear_probe._solution

    def solution(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return found(*arguments)

    monkeypatch.setattr(linear_probe, "_solution", solution)
    torch.set_num_threads(2)
    try:
        fit_linear_head(*separable(30, 3, 1.0), 3, multi_label=False, strength=0.1)
        assert (seen, torch.get_num_threads()) == ([1], 2)
        monkeypatch.setattr(linear_probe, "_ONE_THREAD", 30 * 16 * 3 - 1)
        fit_linear_head(*separable(30, 3, 1.0), 3, multi_label=False, strength=0.1)
        assert seen == [1, 2]
    finally:
        torch.set_num_threads(before)


def test_the_more_noise_the_stronger_the_penalty() -> None:
    strengths = [fit_linear_head(*separable(90, 3, noise), 3, multi_label=False).strength for noise in (0.3, 2.0, 8.0)]
    assert strengths[0] < strengths[1] < strengths[2] <= STRENGTHS[0]


def test_it_answers_unseen_vectors() -> None:
    head = fit_linear_head(*separable(300, 5, 0.8), 5, multi_label=False)
    vectors, targets = separable(300, 5, 0.8, seed=1)
    assert (head(vectors).argmax(-1) == targets).float().mean() > 0.97


def test_several_labels_are_fitted_each_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(200, 16, generator=generator)
    targets = (vectors[:, :4] > 0.5).float()
    head = fit_linear_head(vectors[:150], targets[:150], 4, multi_label=True)
    assert ((head(vectors[150:]) > 0) == (targets[150:] > 0)).float().mean() > 0.9


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_a_handful_of_rows_is_enough_to_fit(rows: int) -> None:
    head = fit_linear_head(*separable(rows, 2, 0.1), 2, multi_label=False)
    assert numpy.isfinite(head.weight.numpy()).all()


def test_a_label_without_a_row_of_its_own_is_unlikely() -> None:
    vectors, targets = separable(60, 2, 0.3)
    head = fit_linear_head(vectors, targets, 3, multi_label=False)
    assert (head(vectors).argmax(-1) == targets).all()
