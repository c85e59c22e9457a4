"""Train candidates on one deck as far as a rung, and score them there."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection
from typing import final

import numpy as np

from tunedeck.comparison.race.contest import Answer
from tunedeck.comparison.race.entrants import Entrant
from tunedeck.comparison.race.parts import Parts
from tunedeck.comparison.race.scores import Scoring
from tunedeck.comparison.race.sequential import Array
from tunedeck.comparison.runs import Interrupted
from tunedeck.core.errors import TrainingError
from tunedeck.deck.deck import Deck
from tunedeck.training.signals import StopSignals
from tunedeck.training.stages import StagedRun


@final
class RungTrainer:
    """Candidates in training on one deck, all over the same examples in the same order."""

    def __init__(self, deck: Deck, parts: Parts, scoring: Scoring, signals: StopSignals) -> None:
        self._deck, self._parts, self._scoring, self._signals = deck, parts, scoring, signals
        self._runs: dict[str, StagedRun] = {}

    def trained(self, entrant: Entrant, share: float, rows: int) -> Answer:
        """Return a candidate's scores of the first held-out examples, at a share of its run.

        Raises Interrupted after Ctrl-C or SIGTERM, with a checkpoint on disk.
        """
        self.check()
        began, train_s = time.perf_counter(), 0.0
        run = self.run_of(entrant)
        try:
            started = time.perf_counter()
            run.train_to(share, self._signals)
            train_s = time.perf_counter() - started
            self.check()
            scores, chances = self._scored(run, entrant.name, rows)
            run.save()
        except TrainingError as error:
            return Answer(np.zeros(0), time.perf_counter() - began, train_s, 0.0, str(error))
        return Answer(scores, time.perf_counter() - began, train_s, 0.0, chances=chances)

    def release(self, names: Collection[str]) -> None:
        """Free the memory of candidates; their checkpoints stay, from which they can be taken up again."""
        for name in names:
            if name in self._runs:
                self._runs.pop(name).close()
                self._deck.remove(name)

    def close(self) -> None:
        """Close the logs of all candidates."""
        self.release(list(self._runs))

    def run_of(self, entrant: Entrant) -> StagedRun:
        """Return a candidate's run, from its last checkpoint where it is not in memory."""
        name = entrant.name
        if name not in self._runs:
            self._deck.add(name, entrant.config.method, seed=entrant.seed)
            training = entrant.config.training
            try:
                self._runs[name] = StagedRun(self._deck, name, self._parts.dataset, training, entrant.folder)
            except BaseException:
                self._deck.remove(name)
                raise
        return self._runs[name]

    def check(self) -> None:
        """Raise Interrupted where a signal has been received."""
        if self._signals.ended is not None:
            raise Interrupted(signal.SIGTERM if self._signals.ended == "terminated" else signal.SIGINT)

    def _scored(self, run: StagedRun, name: str, rows: int) -> tuple[Array, Array | None]:
        """Return a candidate's scores and chances; the scores of all held-out examples also tell its best state."""
        began, examples = time.perf_counter(), self._parts.dataset.evaluation
        scores, chances = self._scoring.scores_and_chances(self._deck, name, self._parts.dataset, examples[:rows])
        if rows == len(examples):
            metrics = {self._scoring.metric: self._scoring.shown(float(scores.mean()))}
            run.record(metrics, time.perf_counter() - began)
        return scores, chances
