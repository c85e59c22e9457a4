"""A linear head on vectors of a frozen base: regularised logistic or ridge regression, its strength chosen by
cross-validation.

Where a head starts from it, training keeps what the base knows already (LP-FT, arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

FOLDS = 5
STRENGTHS: tuple[float, ...] = tuple(10.0 ** (-half / 2) for half in range(-2, 11))
"""Strengths of the penalty that are tried, 10 to 1e-5, strongest first, for vectors of unit variance."""
CROSS_VALIDATED = 5_000
"""As many rows tell a good strength; the solution itself is of all rows."""
_ONE_THREAD = 4_000_000
"""Numbers times labels up to which one thread is as fast as two. Where another program has a core, the threads of so
small products wait for each other: 29 vectors of 64 numbers took 7 s instead of 0.2.
"""
_IN_DOUBLE = 20_000_000
"""Numbers of a matrix that is worked on in float64; larger ones in float32."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Weight (labels, size) and bias (labels,), float32, of logits = weight · vector + bias; and the penalty chosen."""

    weight: torch.Tensor
    bias: torch.Tensor
    """Zeros where a head without bias was asked for."""
    strength: float

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return logits (rows, labels)."""
        return vectors.float() @ self.weight.T + self.bias


@dataclass(frozen=True, slots=True)
class _Problem:
    """Vectors (rows, size) and their targets, and what is fitted to them."""

    x: torch.Tensor
    targets: torch.Tensor
    num_labels: int
    multi_label: bool
    bias: bool
    weights: torch.Tensor | None

    def rows(self, rows: torch.Tensor) -> _Problem:
        """Return the problem restricted to some rows."""
        return replace(self, x=self.x[rows], targets=self.targets[rows])

    def loss(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return the mean loss, without the penalty."""
        logits = self.x @ weight.T + bias
        if self.multi_label:
            targets = self.targets.to(logits.dtype)
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights)
        return F.cross_entropy(logits, self.targets, weight=self.weights)


def fit_linear_head(
    vectors: torch.Tensor,
    targets: torch.Tensor,
    num_labels: int,
    *,
    multi_label: bool,
    bias: bool = True,
    strength: float | None = None,
    weights: torch.Tensor | None = None,
) -> LinearHead:
    """Fit `num_labels` outputs to vectors (rows, size) and targets as `targets_of` gives them.

    Minimises the mean loss plus strength / 2 · |weight|², on vectors scaled to unit variance as a whole, and centred
    where there is a bias. The strength is cross-validated unless it is given; `weights` (labels,) weigh the labels.
    """
    x, centre, scale = _scaled(vectors, bias)
    weights = None if weights is None else weights.to(x.dtype)
    problem = _Problem(x, targets, num_labels, multi_label, bias, weights)
    with _few_threads(x.numel() * num_labels):
        strength, start = _best_strength(problem) if strength is None else (strength, None)
        weight, offset = _solution(problem, strength, start)
    weight = weight / scale
    return LinearHead(weight.float(), (offset - weight @ centre).float(), strength)


def fit_ridge(vectors: torch.Tensor, targets: torch.Tensor, *, bias: bool = True) -> LinearHead:
    """Fit vectors (rows, size) to numbers (rows, outputs), in closed form.

    Minimises the mean squared error plus strength · |weight|², on vectors scaled as `fit_linear_head` does. The
    strength has the lowest leave-one-out error, which one singular value decomposition gives for all of them: the
    residual of a row over 1 minus its leverage (Golub, Heath and Wahba 1979, equation 1.4).
    """
    x, centre, scale = _scaled(vectors, bias)
    mean = targets.to(x.dtype).mean(0) if bias else targets.new_zeros(targets.shape[1], dtype=x.dtype)
    y, rows = targets.to(x.dtype) - mean, len(x)
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    projected, kept = left.T @ y, values > values.max() * 1e-6
    errors = []
    for strength in STRENGTHS:
        shrunk = values.square() / (values.square() + rows * strength)
        leverage = left.square() @ shrunk + (1 / rows if bias else 0.0)
        residuals = y - left @ (shrunk[:, None] * projected)
        errors.append((residuals / (1 - leverage).clamp(min=1e-6)[:, None]).square().mean().item())
    strength = STRENGTHS[min(range(len(errors)), key=errors.__getitem__)]
    factors = torch.where(kept, values / (values.square() + rows * strength), 0.0)
    weight = (right.T @ (factors[:, None] * projected)).T / scale
    return LinearHead(weight.float(), (mean - weight @ centre).float(), strength)


@contextmanager
def _few_threads(work: int) -> Iterator[None]:
    """Compute on one thread inside the block where there is little to do."""
    before = torch.get_num_threads()
    if work <= _ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scaled(vectors: torch.Tensor, bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return vectors of unit variance as a whole, centred where there is a bias; the centre, and the scale."""
    whole = vectors.double() if vectors.numel() <= _IN_DOUBLE else vectors.float()
    centre = whole.mean(0) if bias else whole.new_zeros(whole.shape[1])
    scale = (whole - centre).square().mean().sqrt().clamp(min=1e-6)
    return (whole - centre) / scale, centre, scale


def _best_strength(problem: _Problem) -> tuple[float, tuple[torch.Tensor, torch.Tensor]]:
    """Return the strength with the lowest loss on rows left out, in folds that share out each label; and weight and
    bias of one fold, near the solution of all rows.
    """
    chosen = torch.randperm(len(problem.x), generator=torch.Generator().manual_seed(0))[:CROSS_VALIDATED]
    if not problem.multi_label:
        chosen = chosen[problem.targets[chosen].argsort(stable=True)]
    problem = problem.rows(chosen)
    folds = torch.arange(len(chosen)) % min(FOLDS, len(chosen))
    parts = [(problem.rows(folds != fold), problem.rows(folds == fold)) for fold in range(int(folds.max()) + 1)]
    starts: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(parts)
    losses: list[float] = []
    solutions: list[tuple[torch.Tensor, torch.Tensor]] = []
    for strength in STRENGTHS:
        found = [_solution(part, strength, start, steps=30) for (part, _), start in zip(parts, starts, strict=True)]
        solutions.append(found[0])
        losses.append(sum(one.loss(*own).item() for (_, one), own in zip(parts, found, strict=True)))
        if len(losses) > 2 and losses[-1] > losses[-2] > losses[-3]:
            break  # weaker still is worse still, and slower
        starts = [*found]
    best = min(range(len(losses)), key=losses.__getitem__)
    return STRENGTHS[best], solutions[best]


def _solution(
    problem: _Problem, strength: float, start: tuple[torch.Tensor, torch.Tensor] | None = None, steps: int = 300
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias, by L-BFGS from `start` or zeros."""
    count, x = problem.num_labels, problem.x
    weight, bias = start or (x.new_zeros(count, x.shape[1]), x.new_zeros(count))
    weight, bias = weight.clone().requires_grad_(True), bias.clone().requires_grad_(problem.bias)
    optimizer = torch.optim.LBFGS(
        [weight, bias] if problem.bias else [weight],
        max_iter=steps,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = problem.loss(weight, bias) + strength / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
