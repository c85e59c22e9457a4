"""When a run is evaluated, when it stops early, and what it says of both at its end."""

from __future__ import annotations

from typing import final

from tunedeck.core.i18n import say
from tunedeck.core.run_length import affordable_evaluations, wanted_evaluations
from tunedeck.core.units import duration
from tunedeck.training.config import TrainingSettings
from tunedeck.training.state import RunState


@final
class Evaluations:
    """The evaluations of a run, after a number of steps or spread evenly over all; one more at the end.

    `held_out_ratio` is the number of held-out examples for each training example.
    """

    def __init__(
        self, settings: TrainingSettings, total_steps: int, steps_per_epoch: int, held_out_ratio: float
    ) -> None:
        self._patience = settings.early_stopping_patience
        self._every = settings.eval_steps or (None if self._patience else steps_per_epoch)
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._held_out_ratio = held_out_ratio
        self._wanted = wanted_evaluations(total_steps / steps_per_epoch, total_steps)

    def due(self, state: RunState, time_share: float) -> bool:
        """Tell whether the last step ends with an evaluation that has not been made.

        `time_share` is the part of `max_minutes` that has passed. Only what is counted decides, so that all processes
        and a resumed run evaluate after the same steps.
        """
        step = state.steps
        if state.evaluated_step == step or not self._held_out_ratio:
            return False
        if step == self._total_steps or time_share >= 1:
            return True
        if self._every is not None:
            return step % self._every == 0
        wanted = max(self._wanted * step // self._total_steps, int(self._wanted * time_share))
        affordable = affordable_evaluations(step / self._steps_per_epoch, self._held_out_ratio)
        return state.evaluations < min(wanted, affordable)

    def out_of_patience(self, state: RunState) -> bool:
        """Tell whether the last evaluations were no better than the best before them, and the run stops for that."""
        return bool(self._patience) and state.stale >= (self._patience or 0)

    def note(self, state: RunState) -> str | None:
        """Yield the notes for a run that stopped early or was evaluated less often than usual."""
        if state.stopped == "early":
            return say(
                "stopped after {steps:,} of {planned:,} steps: no better for {count} evaluations; saved about {saved}; "
                "kept step {best:,}",
                steps=state.steps,
                planned=state.planned_steps,
                count=state.stale,
                saved=duration(state.saved_s),
                best=state.best_step,
            )
        if self._every is None and state.stopped in ("finished", "time") and state.evaluations < self._wanted:
            return say(
                "evaluations: {count} instead of {wanted}, because many examples are held out for so short a run; "
                "data.eval_size or training.eval_steps changes that",
                count=state.evaluations,
                wanted=self._wanted,
            )
        return None
