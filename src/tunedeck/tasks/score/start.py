"""The head that a run on scores begins with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunedeck.deck.deck import Deck
from tunedeck.tasks import head_start
from tunedeck.tasks.base import Dataset, Started
from tunedeck.tasks.linear_probe import LinearHead, fit_linear_head, fit_ridge
from tunedeck.tasks.score.data import ScoredText
from tunedeck.tasks.score.task import metrics_of, task_of


def start_head(deck: Deck, name: str, dataset: Dataset[ScoredText], *, fresh: bool = True) -> Started:
    """Fit an adapter's last layer to what it reads of the training texts: ridge regression in closed form, or logistic
    regression where that is the loss.
    """
    task = task_of(deck, name)

    def fit(vectors: torch.Tensor, examples: Sequence[ScoredText], bias: bool) -> LinearHead:
        wanted = task.inside(torch.tensor([one.scores for one in examples], dtype=torch.float32))
        if task.loss == "logistic":
            return fit_linear_head(vectors, wanted, wanted.shape[1], multi_label=True, bias=bias)
        return fit_ridge(vectors, wanted, bias=bias)

    return head_start.start_head(
        deck,
        name,
        dataset,
        task.max_length,
        fit,
        lambda logits, examples: metrics_of(task, logits, examples),
        fresh=fresh,
    )
