"""Train and score the candidates of a race on the machines of a Ray cluster, each from its last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

from tunedeck.comparison.race.contest import Answer
from tunedeck.comparison.race.entrants import Entrant
from tunedeck.comparison.race.parts import Parts
from tunedeck.comparison.race.rung_trainer import RungTrainer
from tunedeck.comparison.race.scores import Scoring
from tunedeck.comparison.ray_tasks import RayTasks
from tunedeck.comparison.runs import Interrupted, deck_for
from tunedeck.deck.deck import Deck
from tunedeck.training.config import RunConfig
from tunedeck.training.signals import StopSignals


@dataclass(frozen=True, slots=True)
class Shared:
    """Values that the tasks of a race have in common."""

    config: RunConfig
    """The run of one of them, which names the base."""
    parts: Parts
    scoring: Scoring


@final
class Spread:
    """Candidates in training on a cluster; a task that has begun is asked for its answer later."""

    def __init__(self, tasks: RayTasks, shared: Shared) -> None:
        self._tasks, self._shared = tasks, tasks.put(shared)
        self._begun: dict[tuple[str, float, int], Any] = {}

    def begin(self, entrant: Entrant, share: float, rows: int) -> None:
        """Let a candidate be trained to a share of its run and scored, unless that has begun."""
        key = (entrant.key, share, rows)
        if key not in self._begun:
            self._begun[key] = self._tasks.begin(_trained, [self._shared], entrant, share, rows)

    def answer(self, entrant: Entrant, share: float, rows: int) -> Answer:
        """Return the answer when it is there; Interrupted after Ctrl-C or SIGTERM, with checkpoints on disk."""
        self.begin(entrant, share, rows)
        found: Answer = self._tasks.result(self._begun.pop((entrant.key, share, rows)))
        return found


@lru_cache(maxsize=1)
def _loaded(shared: Any) -> tuple[Shared, Deck]:
    """Return what a worker keeps from task to task of a race: the data and the base."""
    import ray

    found: Shared = ray.get(shared)
    return found, deck_for(found.config, found.parts.dataset.labels)


def _trained(shared: list[Any], entrant: Entrant, share: float, rows: int) -> Answer | None:
    """Return a candidate's answer; None where the task was stopped."""
    found, deck = _loaded(shared[0])
    with StopSignals() as signals:
        trainer = RungTrainer(deck, found.parts, found.scoring, signals)
        try:
            return trainer.trained(entrant, share, rows)
        except Interrupted:
            return None
        finally:
            trainer.close()
