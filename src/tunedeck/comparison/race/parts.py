"""Divide a run's data in three: to train on, to race on, and a part that measures the winner alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.tasks.base import Dataset

HELD_OUT = 6
"""One in this many training examples is held out to compare candidates."""
MOST_HELD_OUT = 3000
FEWEST_HELD_OUT = 8


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """`dataset` trains on what is left and evaluates on the held-out examples, in random order; `test` is neither."""

    dataset: Dataset[Any]
    test: Sequence[Any]


def divided(dataset: Dataset[Any], metric: str, seed: int) -> Parts:
    """Return the parts: `test` is what a run would evaluate on; DataError where too little would be held out."""
    count = len(dataset.train)
    wanted = min(count // HELD_OUT, MOST_HELD_OUT)
    if wanted < FEWEST_HELD_OUT:
        raise DataError(
            say(
                "{source}: {count} training examples are too few for a race, which holds one in {share} of them out; "
                "it takes {least} or more",
                source=dataset.source,
                count=count,
                share=HELD_OUT,
                least=HELD_OUT * FEWEST_HELD_OUT,
            )
        )
    chosen = random.Random(seed).sample(range(count), wanted)
    held_out = set(chosen)
    train = [one for number, one in enumerate(dataset.train) if number not in held_out]
    evaluation = [dataset.train[number] for number in chosen]
    parts = replace(dataset, train=train, evaluation=evaluation, metric_for_best_model=metric)
    return Parts(parts, dataset.evaluation)
