"""The rung that trains nothing: a head on each base's frozen vectors, which chooses the base and is the floor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from tunedeck.comparison.race.parts import Parts
from tunedeck.comparison.race.scores import Scoring
from tunedeck.comparison.race.sequential import Array, told_worse
from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.runs import deck_for
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.methods.registry import config_of
from tunedeck.tasks.registry import view_of
from tunedeck.training.config import RunConfig, run_config

FLOOR = "head only"


@final
@dataclass(frozen=True, slots=True)
class Base:
    """A base with the head that was fitted to its frozen vectors, its adapter FLOOR; no scores for a task without."""

    reference: str
    parameters: int
    scores: Array | None
    seconds: float
    worse: bool = False
    """Whether it is significantly worse than another base."""


def choose_base(
    values: Mapping[str, Any], references: Sequence[str], parts: Parts, scoring: Scoring, tell: Callable[[str], None]
) -> tuple[Deck, list[Base]]:
    """Return the deck of the best base, of equal ones the smallest, with its FLOOR; and all bases, the best first.

    Raises ConfigError where there are several bases and the task has no head that could be fitted to their vectors.
    """
    best: tuple[Deck, Base] | None = None
    found: list[Base] = []
    for reference in references:
        config = run_config({**values, "model": reference})
        if len(references) > 1 and view_of(config.task).head_start is None:
            raise ConfigError(
                say(
                    "--bases compares heads on frozen vectors, which the task {task} does not have; name one base",
                    task=config.task.kind,
                )
            )
        deck, base = _with_head(config, parts, scoring)
        found.append(base)
        if base.scores is not None:
            metric, value = metric_name(scoring.metric), scoring.shown(float(base.scores.mean()))
            tell(say("rung 0: a head on {base}: {metric} {value:.3f}", base=reference, metric=metric, value=value))
        if best is None or _rank(base) < _rank(best[1]):
            best = deck, base
    assert best is not None
    worse = told_worse({one.reference: one.scores for one in found if one.scores is not None}, len(found), 0.05)
    found = [replace(one, worse=one.reference in worse) for one in found]
    return best[0], sorted(found, key=_rank)


def _rank(base: Base) -> tuple[float, int]:
    return (0.0 if base.scores is None else -float(base.scores.mean()), base.parameters)


def _with_head(config: RunConfig, parts: Parts, scoring: Scoring) -> tuple[Deck, Base]:
    began = time.perf_counter()
    deck = deck_for(config, parts.dataset.labels)
    parameters = sum(parameter.numel() for parameter in deck.model.parameters())
    head_start, scores = view_of(config.task).head_start, None
    if head_start is not None:
        deck.add(FLOOR, config_of("full", {"layers": "head"}))
        head_start(deck, FLOOR, replace(parts.dataset, evaluation=()))
        scores = scoring.scores(deck, FLOOR, parts.dataset, parts.dataset.evaluation)
    return deck, Base(config.model, parameters, scores, time.perf_counter() - began)
