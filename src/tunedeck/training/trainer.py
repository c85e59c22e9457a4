"""One adapter in training: its batches, optimizer steps, evaluations and checkpoints. The loop is in loop.py.

The file is long because a checkpoint holds what all of these change, so they share one state.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import NamedTuple, TypeAlias, final

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import nn

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.run_length import steps_per_epoch, total_steps
from tunedeck.data.batches import length_batches
from tunedeck.deck.adapter import Adapter
from tunedeck.tasks.base import Objective, Started
from tunedeck.tasks.registry import view_of
from tunedeck.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    adapter_tensors,
    captured,
    fill_adapter,
    fill_optimizer,
    random_state,
    set_random_state,
)
from tunedeck.training.config import TrainingSettings
from tunedeck.training.distributed import micro_batch_count, micro_batches
from tunedeck.training.evaluations import Evaluations
from tunedeck.training.events import EventLog
from tunedeck.training.optimizer import adamw, schedule
from tunedeck.training.progress import ProgressRow
from tunedeck.training.signals import StopSignals
from tunedeck.training.state import Ended, RunState, StepStats, is_better

CHECKPOINT_S = 600.0
"""Longest time without a checkpoint where `checkpoint_every` is not set."""

ShouldStop: TypeAlias = Callable[[dict[str, float]], bool]
"""Given the metrics of each evaluation, says whether the run ends there."""


class Start(NamedTuple):
    """The start from a head in closed form, and the seconds it took."""

    started: Started
    seconds: float


@final
class AdapterTrainer:
    """Trains one adapter on an objective; the base stays frozen and in eval mode.

    `metric_for_best_model` names the metric of the best state; `held_out_ratio` is the number of held-out examples for
    each training example; `saved` is the checkpoint to resume from; `sampling_weights` draw each epoch's examples, all
    once without them. `state` counts the run, `stats` its last step.
    """

    def __init__(
        self,
        adapter: Adapter,
        objective: Objective,
        settings: TrainingSettings,
        metric_for_best_model: str,
        held_out_ratio: float,
        log: EventLog,
        accelerator: Accelerator,
        progress: ProgressRow,
        checkpoints: Checkpoints | None = None,
        saved: Checkpoint | None = None,
        should_stop: ShouldStop = lambda metrics: False,
        start: Start | None = None,
        sampling_weights: Sequence[float] | None = None,
    ) -> None:
        self.adapter = adapter
        self.objective = objective
        self.settings = settings
        self.accelerator = accelerator
        self.checkpoints = checkpoints
        self.state = RunState()
        self.stats = StepStats()
        self.pause_at: int | None = None
        """The step after which a stage ends."""
        self.parameters = list(adapter.parameters())
        self.optimizer = adamw(adapter, settings)
        self._metric_for_best_model = metric_for_best_model
        self._sampling_weights = sampling_weights
        self._lower_is_better = view_of(adapter.task).lower_is_better
        self._log = log
        self._progress = progress
        self._saved = saved
        self._should_stop = should_stop
        self._told_to_stop = False
        per_epoch = steps_per_epoch(len(objective.lengths), settings.batch_size, settings.gradient_accumulation_steps)
        self._start = start
        self.total = settings.max_steps or total_steps(settings.epochs, per_epoch)
        if adapter.config.trains == "head" and start is not None:
            self.total = 0  # the start is the solution
        self._evaluations = Evaluations(settings, self.total, per_epoch, held_out_ratio)
        self._best: dict[str, torch.Tensor] = {}
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def begin(self) -> None:
        """Begin, or continue from the end of a checkpoint's step."""
        set_seed(self.settings.seed + self.accelerator.process_index)
        if self._saved is not None:
            self._restore(self._saved)
        steps = self.state.steps
        self._rates = schedule(self.optimizer, self.settings, self.total, self._time_share, steps)
        self._batches = islice(self._all_batches(), steps * self.settings.gradient_accumulation_steps, None)
        self._log.write(
            "start" if self._saved is None else "resume",
            steps=self.total,
            examples=len(self.objective.lengths),
            step=steps,
        )
        self._progress.start(self.total, steps)
        if self._start is not None:
            self._begin_with(self._start)
        self.adapter.train()

    def next_batches(self) -> list[list[int]]:
        """Return the batches of the next step, as row numbers."""
        return [next(self._batches) for _ in range(self.settings.gradient_accumulation_steps)]

    def optimizer_step(self, seconds: float) -> None:
        """Apply the gradients, whose computation took `seconds`; TrainingError for a loss that is not a finite
        number.
        """
        began = time.perf_counter()
        self.stats.check_finite(self.state.steps + 1, self.optimizer.param_groups[0]["lr"])
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.count(self.stats, seconds + time.perf_counter() - began)
        if self.settings.max_minutes is not None:  # all processes end at the same step
            self.state.train_s = broadcast_object_list([self.state.train_s])[0]
        step, loss = self.state.steps, self.stats.loss
        self._log.write("step", step=step, loss=round(loss, 6), learning_rate=self._rates.get_last_lr()[0])
        self._rates.step()
        self._progress.step(step, loss, self.stats.tokens)

    def evaluation_due(self) -> bool:
        """Tell whether the last step ends with an evaluation that has not been made."""
        return self._evaluations.due(self.state, self._time_share())

    def evaluate(self, signals: StopSignals) -> None:
        """Evaluate, and keep the state if it is the best.

        In one process a signal breaks the evaluation off; it stays due, and a resumed run makes it from the same random
        numbers.
        """
        alone = self.accelerator.num_processes == 1
        began, randomness = time.perf_counter(), random_state()
        self.adapter.eval()
        try:
            with signals.at_once() if alone else nullcontext():
                metrics = broadcast_object_list([self.objective.evaluate()])[0]
        except KeyboardInterrupt:
            if not alone or signals.ended is None:
                raise
            set_random_state(randomness)
            return
        self.adapter.train()
        self.record_evaluation(metrics, time.perf_counter() - began)
        self._told_to_stop = self._should_stop(metrics)

    def record_evaluation(self, metrics: dict[str, float], seconds: float) -> None:
        """Note an evaluation of the present state, which took `seconds`, and keep the state if it is the best."""
        step = self.state.steps
        self.state.eval_s += seconds
        self.state.evaluations += 1
        self.state.evaluated_step = step
        self._saved_step = 0  # a checkpoint of this step does not have the evaluation
        self._log.write("eval", step=step, **metrics)
        self._progress.evaluated(step, metrics)
        if self._is_better(metrics, self.state.metrics):
            self.state.metrics, self.state.best_step = metrics, step
            self._best = {name: tensor.clone() for name, tensor in adapter_tensors(self.adapter).items()}
        if self._is_better(metrics, self.state.reached):
            self.state.stale, self.state.reached = 0, metrics
        else:
            self.state.stale += 1

    def ended(self) -> Ended | None:
        """Return the reason why the run ends after its latest step; None if it continues."""
        if self.evaluation_due():
            return None
        if self._told_to_stop:
            return "stopped"
        if self.state.steps == self.total:
            return "finished"
        if self._time_share() >= 1:
            return "time"
        if self.state.steps == self.pause_at:
            return "paused"
        return "early" if self._evaluations.out_of_patience(self.state) else None

    def checkpoint_due(self) -> bool:
        """Tell whether the last step ends with a checkpoint."""
        if self.settings.checkpoint_every is not None:
            return self.state.steps % self.settings.checkpoint_every == 0
        return self.state.evaluated_step == self.state.steps or self.stats.save > 0

    def checkpoint_overdue(self) -> bool:
        """Tell whether the last checkpoint is longer ago than it should be."""
        return time.monotonic() - self._saved_at > CHECKPOINT_S

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the end of the last step, unless there is one."""
        step = self.state.steps
        if self.checkpoints is None or not self.settings.keep_checkpoints or self._saved_step == step:
            return
        self._saved_step, self._saved_at = step, time.monotonic()
        randomness = gather_object([random_state()])
        if self.accelerator.is_main_process:
            values = {"random": randomness, "events": self._log.mark()}
            self.checkpoints.write(captured(self.adapter, self._best, self.optimizer, self.state, values))
            self._log.write("checkpoint", step=step, seconds=round(time.monotonic() - self._saved_at, 3))

    def end(self, ended: Ended) -> None:
        """End the run; leave the adapter in eval mode, in its best state."""
        self._leave(ended)
        state = self.state
        numbers = {"step": state.steps, "planned_steps": state.planned_steps, "best_step": state.best_step}
        self._log.write("end", stopped=ended, **numbers, saved_s=round(state.saved_s, 3))
        note = self._evaluations.note(state)
        if note is not None:
            self._progress.note(note)

    def fail(self, error: Exception) -> None:
        """End the run, which an error has broken off, in the same way; a TrainingError is logged."""
        self._leave("failed")
        if isinstance(error, TrainingError):
            self._log.write("failed", step=self.state.steps, reason=str(error))

    def can_split(self, batches: list[list[int]]) -> bool:
        """Tell whether batches like these can be cut into smaller micro-batches."""
        return self.objective.divisible and any(self._micro_batches(rows) < len(rows) for rows in batches)

    def split(self, batches: list[list[int]]) -> None:
        """Halve the micro-batches from here on; TrainingError when batches like these cannot be cut further."""
        if not self.objective.divisible:
            raise TrainingError(
                say(
                    "out of memory, and this loss needs its batch whole; set task.chunk_size, or lower "
                    "training.batch_size"
                )
            )
        if not self.can_split(batches):
            raise TrainingError(say("out of memory with a single example; lower task.max_length, or quantize the base"))
        self.state.splits *= 2
        step, rows = self.state.steps + 1, max(-(-len(rows) // self._micro_batches(rows)) for rows in batches)
        self._log.write("out_of_memory", step=step, rows=rows, splits=self.state.splits)
        text = say(
            "out of memory at step {step}: batches are worked through in pieces of {rows} from here on, "
            "{splits} to a batch; the steps stay the same",
            step=step,
            rows=rows,
            splits=self.state.splits,
        )
        warnings.warn(text, stacklevel=2)

    def _micro_batches(self, rows: Sequence[int]) -> int:
        return micro_batch_count(self.objective, rows, self.state.splits, self.accelerator)

    def _time_share(self) -> float:
        """Return the part of `max_minutes` that the steps so far have taken; 0 without that limit."""
        limit = self.settings.max_minutes
        return 0.0 if limit is None else min(1.0, self.state.train_s / (60 * limit))

    def _leave(self, ended: Ended) -> None:
        self.state.stopped = ended
        share = self._time_share()
        self.state.planned_steps = min(self.total, round(self.state.steps / share)) if share else self.total
        self.adapter.eval()
        self.optimizer.zero_grad(set_to_none=True)
        if self._best:
            fill_adapter(self.adapter, self._best)

    def _is_better(self, metrics: dict[str, float], before: dict[str, float]) -> bool:
        return is_better(metrics, before, self._metric_for_best_model, self._lower_is_better)

    def _begin_with(self, start: Start) -> None:
        """Let the start be the state to surpass, where it is known how good that is."""
        self.state.start_s = start.seconds
        metrics, self.state.head_only, self.state.start_kept = start.started
        if metrics:
            self.state.metrics = self.state.start = metrics
            self._best = {name: tensor.clone() for name, tensor in adapter_tensors(self.adapter).items()}
            self._log.write("eval", step=0, **metrics)
            self._progress.began(metrics, start.seconds)

    def _restore(self, saved: Checkpoint) -> None:
        self.state = RunState(**saved.state["outcome"])
        self._saved_step = self.state.steps
        self._best = {name: tensor.to(self.accelerator.device) for name, tensor in saved.tensors["best"].items()}
        fill_adapter(self.adapter, saved.tensors["adapter"])
        fill_optimizer(self.optimizer, saved.tensors["optimizer"], saved.state["optimizer"])
        if self.objective.remembers:
            self._recall()
        set_random_state(saved.state["random"][self.accelerator.process_index])

    def _recall(self) -> None:
        """Bring back what the objective remembers of examples, from the batches in which they came first: other shapes
        round otherwise.
        """
        batches, accumulation = self._all_batches(), self.settings.gradient_accumulation_steps
        seen: set[int] = set()
        with torch.no_grad():
            for _ in range(self.state.steps):
                chosen = list(islice(batches, accumulation))
                for rows, _ in micro_batches(self.objective, chosen, self.state.splits, self.accelerator):
                    if not seen.issuperset(rows):
                        self.objective.loss(rows)
                        seen.update(rows)

    def _all_batches(self) -> Iterator[list[int]]:
        """Yield row numbers, epoch after epoch, without end."""
        epoch = 0
        while True:
            seed = self.settings.seed + epoch
            yield from length_batches(self.objective.lengths, self.settings.batch_size, seed, self._sampling_weights)
            epoch += 1
