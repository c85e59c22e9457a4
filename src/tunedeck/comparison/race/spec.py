"""Specify a race: a run's values, candidates, bases, limits, the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunedeck.comparison.budget import minutes_of, price_of, seeds_of
from tunedeck.comparison.grammar import Candidate
from tunedeck.comparison.race.contest import Until
from tunedeck.comparison.race.portfolio import Candidates, parse_candidates, portfolio, with_seeds
from tunedeck.comparison.report.values import Price
from tunedeck.core import console
from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.training.config import RunConfig, run_config

UNTIL: tuple[Until, ...] = ("stable", "clear")


@dataclass(frozen=True, slots=True)
class RaceSpec:
    """One race before it runs."""

    values: dict[str, Any]
    candidates: tuple[tuple[Candidate, int], ...]
    given: bool
    """Whether the candidates were asked for, so that one that does not fit is an error."""
    bases: tuple[str, ...]
    until: Until
    limit_s: float | None
    price: Price | None
    folder: Path
    command: str
    progress: bool
    ray: str | None = None
    """The address of the Ray cluster that trains the candidates."""

    def tell(self, text: str) -> None:
        """Print a note to standard error, unless `progress` is False."""
        if self.progress:
            console.tell(text)


def race_spec(
    values: dict[str, Any],
    *,
    folder: Path,
    command: str,
    candidates: Candidates | None,
    bases: str | Sequence[str] | None,
    seeds: int | str | Sequence[int] | None,
    until: str,
    limits: tuple[float | None, float | None],
    price_per_hour: float | None,
    currency: str,
    progress: bool,
    ray: str | None = None,
) -> RaceSpec:
    """Return the race that the arguments of `tunedeck.race` describe; ConfigError where they do not fit."""
    config = run_config(values)
    if config.training.max_minutes is not None:
        raise ConfigError(say("training.max_minutes has no effect in a race; limit it with --minutes"))
    if price_per_hour is not None and not 0 < price_per_hour < 1e12:
        raise ConfigError(say("{name} must be above 0, got {value}", name="price_per_hour", value=price_per_hour))
    price = price_of(price_per_hour, currency.upper())
    listed = bases.split(",") if isinstance(bases, str) else bases or (config.model,)
    references = tuple(dict.fromkeys(text.strip() for text in listed if text.strip()))
    if not references:
        raise ConfigError(say("--bases takes names of base models, separated by commas; got {value!r}", value=bases))
    found = portfolio(config.task.kind) if candidates is None else parse_candidates(candidates, values)
    for one in found:
        try:
            candidate_config(one, values)
        except ConfigError as error:
            raise ConfigError(say("{name}: {reason}", name=one.name, reason=error)) from error
    limit = minutes_of(*limits, price)
    return RaceSpec(
        values={**values, "model": references[0]},
        candidates=tuple(with_seeds(found, seeds_of(seeds, config.training.seed))),
        given=candidates is not None,
        bases=references,
        until=cast(Until, one_of("until", until, UNTIL)),
        limit_s=None if limit is None else 60 * limit,
        price=price,
        folder=folder,
        command=command,
        progress=progress,
        ray=ray,
    )


def candidate_config(candidate: Candidate, values: Mapping[str, Any]) -> RunConfig:
    """Return a candidate's run; ConfigError where its settings do not fit."""
    training = {**values.get("training", {}), **candidate.training}
    return run_config({**values, "method": candidate.method, "training": training, "out": None})
