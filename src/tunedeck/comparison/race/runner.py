"""Answer what a contest asks: have a candidate trained to a rung and scored, or read what an earlier call has found."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import final

from tunedeck.comparison.race.contest import Answer, Ask, Ladder
from tunedeck.comparison.race.entrants import Entrant
from tunedeck.comparison.race.log import RaceLog
from tunedeck.comparison.race.rung_trainer import RungTrainer
from tunedeck.comparison.race.spread import Spread
from tunedeck.training.stages import StagedRun


@final
class Runner:
    """The candidates of a race, trained here or, with `spread`, on other machines.

    `began` is when this call began, by `time.perf_counter`. `tell` is given each new answer.
    """

    def __init__(
        self,
        trainer: RungTrainer,
        entrants: Mapping[str, Entrant],
        ladder: Ladder,
        log: RaceLog,
        began: float,
        tell: Callable[[Ask, Answer], None],
        spread: Spread | None = None,
    ) -> None:
        self._trainer, self._entrants, self._spread = trainer, entrants, spread
        self._ladder, self._log, self._tell = ladder, log, tell
        self._earlier_s, self._began = log.at_s, began

    def answer(self, ask: Ask, upcoming: Sequence[Ask] = ()) -> Answer:
        """Return the answer; Interrupted after Ctrl-C or SIGTERM, with a checkpoint on disk.

        Other machines begin with the `upcoming` asks meanwhile.
        """
        if self._spread is not None:
            for one in (ask, *upcoming):
                if self._key(one) not in self._log.answers:
                    self._spread.begin(*self._task(one))
        known = self._log.answers.get(self._key(ask))
        if known is not None:
            return known
        trained = self._trainer.trained if self._spread is None else self._spread.answer
        answer = replace(trained(*self._task(ask)), at_s=self.at_s())
        self._log.add(*self._key(ask), answer)
        self._tell(ask, answer)
        return answer

    def release(self, names: Collection[str]) -> None:
        """Free the memory of candidates; their checkpoints stay, from which they can be taken up again."""
        self._trainer.release(names)

    def run_of(self, name: str) -> StagedRun:
        """Return a candidate's run, from its last checkpoint where it is not in memory."""
        return self._trainer.run_of(self._entrants[name])

    def at_s(self) -> float:
        """Return the seconds of the race so far, of earlier calls as well."""
        return self._earlier_s + time.perf_counter() - self._began

    def _task(self, ask: Ask) -> tuple[Entrant, float, int]:
        return self._entrants[ask.name], self._ladder.shares[ask.rung], self._ladder.rows[ask.rung]

    def _key(self, ask: Ask) -> tuple[str, float, int]:
        entrant, share, rows = self._task(ask)
        return entrant.key, share, rows
