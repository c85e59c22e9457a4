"""Train an adapter in stages: as far as a share of its run, kept there, and further, as in one go."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Dataset
from tunedeck.training.checkpoint import random_state, set_random_state
from tunedeck.training.config import TrainingSettings
from tunedeck.training.jobs import finish_run, make_trainer
from tunedeck.training.loop import as_training_error, training_loop
from tunedeck.training.progress import Progress
from tunedeck.training.record import TrainingRun
from tunedeck.training.signals import StopSignals
from tunedeck.training.state import Ended


@final
class StagedRun:
    """The run of an adapter of a deck, begun or, where its folder has a checkpoint, resumed.

    It does not evaluate: `record` notes evaluations that the caller makes between stages. Random numbers are the run's,
    so that stages of several runs may alternate.
    """

    def __init__(self, deck: Deck, name: str, dataset: Dataset[Any], settings: TrainingSettings, folder: Path) -> None:
        self._deck, self._dataset, self._folder = deck, dataset, folder
        self._stack = ExitStack()
        row = Progress(deck.model.device, show=False).row(name, ())
        resume = any((folder / "checkpoints").glob("step-*"))
        try:
            self._trainer = make_trainer(
                deck, name, dataset, settings, folder, resume, row, lambda metrics: False, self._stack, evaluates=False
            )
            self._trainer.begin()
        except BaseException:
            self._stack.close()
            raise
        self._random = random_state()

    @property
    def steps(self) -> int:
        """Return the steps of the whole run."""
        return self._trainer.total

    @property
    def best_step(self) -> int:
        """Return the step of the best evaluation that was recorded."""
        return self._trainer.state.best_step

    def train_to(self, share: float, signals: StopSignals) -> Ended:
        """Train to a share of the run: "paused" or "finished" there, "interrupted" or "terminated" by a signal.

        Raises TrainingError when the loss is no longer a number or memory does not suffice.
        """
        trainer = self._trainer
        trainer.pause_at = min(trainer.total, max(1, round(share * trainer.total)))
        if trainer.state.steps >= trainer.pause_at:
            return "finished" if trainer.state.steps == trainer.total else "paused"
        set_random_state(self._random)
        trainer.adapter.train()
        with as_training_error():
            (ended,) = (ended for _, ended in training_loop([trainer], signals))
        self._random = random_state()
        trainer.adapter.eval()
        return ended

    def record(self, metrics: dict[str, float], seconds: float) -> None:
        """Note an evaluation of the present state; `finish` returns to the best."""
        self._trainer.record_evaluation(metrics, seconds)

    def save(self) -> None:
        """Write a checkpoint of the present state; TrainingError when its weights are no longer numbers."""
        self._trainer.save_checkpoint()

    def leave(self) -> None:
        """Leave the adapter in its best state."""
        trainer = self._trainer
        trainer.end("finished" if trainer.state.steps == trainer.total else "stopped")

    def finish(self, metrics: dict[str, float], peak_bytes: int) -> TrainingRun:
        """Write what a run folder ends with, after `leave`; `metrics` are those of the adapter that is saved."""
        self._trainer.state.metrics = metrics
        return finish_run(self._deck, self._dataset, self._trainer, self._folder, peak_bytes)

    def close(self) -> None:
        """Close the run's log."""
        self._stack.close()
