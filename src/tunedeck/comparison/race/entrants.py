"""The candidates of a race as runs: checked against task and base before anything is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tunedeck.comparison.grammar import Candidate
from tunedeck.comparison.race.spec import candidate_config
from tunedeck.core.errors import ConfigError, TunedeckError
from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.deck.deck import Deck
from tunedeck.deck.reading import check_trains
from tunedeck.training.config import RunConfig


@final
@dataclass(frozen=True, slots=True)
class Entrant:
    """One candidate with one seed of its first weights; `size` is its number of trainable parameters."""

    name: str
    config: RunConfig
    seed: int
    size: int
    folder: Path

    @property
    def key(self) -> str:
        """Return a digest of all that tells it from other candidates."""
        values = [self.settings, self.config.training.model_dump(mode="json"), self.seed]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """Return the method's settings and the learning rate."""
        method, training = self.config.method, self.config.training
        rate = training.learning_rate or method.learning_rate
        return {"kind": method.kind, **to_values(method), "learning_rate": rate}


def make_entrants(
    candidates: Sequence[tuple[Candidate, int]],
    values: Mapping[str, Any],
    deck: Deck,
    folder: Path,
    tell: Callable[[str], None] | None,
) -> dict[str, Entrant]:
    """Return the candidates by name, in their order; each is built once to see that it fits, and how large it is.

    Those that do not fit are left out and `tell` is told, or, where `tell` is None, ConfigError names the first.
    """
    found: dict[str, Entrant] = {}
    for candidate, seed in candidates:
        try:
            config = candidate_config(candidate, values)
            check_trains(config.method, deck.task)
            size = _size(deck, config, seed)
        except TunedeckError as error:
            if tell is None:
                raise ConfigError(say("{name}: {reason}", name=candidate.name, reason=error)) from error
            tell(say("{name} is left out: {reason}", name=candidate.name, reason=error))
            continue
        found[candidate.name] = Entrant(candidate.name, config, seed, size, folder / "candidates" / candidate.folder)
    if not found:
        raise ConfigError(say("no candidate fits the base {model}; name some with --candidates", model=values["model"]))
    return found


def _size(deck: Deck, config: RunConfig, seed: int) -> int:
    deck.add("(size)", config.method, seed=seed)
    try:
        return deck.summary("(size)").trainable_parameters
    finally:
        deck.remove("(size)")
