"""The training loop of one adapter, in the open: batches in, the best state kept."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import TypeAlias, final

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import nn

from tunedeck.data.batches import length_batches
from tunedeck.deck.adapter import Adapter
from tunedeck.tasks.base import Objective
from tunedeck.tasks.registry import view_of
from tunedeck.training.best import is_better
from tunedeck.training.checkpoint import Checkpoint, Checkpoints
from tunedeck.training.config import TrainingSettings
from tunedeck.training.distributed import pieces
from tunedeck.training.events import EventLog
from tunedeck.training.memory import said_of_pieces, smaller_pieces
from tunedeck.training.optimizer import adamw, schedule
from tunedeck.training.outcome import Outcome, Seen
from tunedeck.training.progress import Lane
from tunedeck.training.signals import StopSignals
from tunedeck.training.state import (
    adapter_tensors,
    captured,
    fill_adapter,
    fill_optimizer,
    random_state,
    set_random_state,
)

CHECKPOINT_S = 600.0
"""Longest time without a checkpoint where `checkpoint_every` is not set."""

GiveUp: TypeAlias = Callable[[dict[str, float]], bool]
"""Given the metrics of each evaluation, says whether to end the run there."""


@final
class Loop:
    """One adapter's way through an objective: what goes before and after the gradients of each step (step.py).

    The base stays frozen and in eval mode. `best_by` tells the best state; `give_up` may end the run after an evaluation.
    """

    def __init__(
        self,
        adapter: Adapter,
        objective: Objective,
        settings: TrainingSettings,
        best_by: str,
        log: EventLog,
        accelerator: Accelerator,
        checkpoints: Checkpoints | None = None,
        give_up: GiveUp = lambda metrics: False,
    ) -> None:
        self.adapter = adapter
        self.objective = objective
        self.settings = settings
        self.best_by = best_by
        self.log = log
        self.accelerator = accelerator
        self.checkpoints = checkpoints
        self.give_up = give_up
        self.signals = StopSignals()
        self.outcome = Outcome()
        self.optimizer = adamw(adapter, settings)
        per_epoch = max(
            1, math.ceil(len(objective.lengths) / settings.batch_size) // settings.gradient_accumulation_steps
        )
        self.total = settings.max_steps or max(1, round(settings.epochs * per_epoch))
        self._evaluate_every = settings.eval_steps or per_epoch
        self._seen = Seen()
        self._best: dict[str, torch.Tensor] = {}
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def begin(self, progress: Lane, saved: Checkpoint | None) -> bool:
        """Set out, or go on from the end of a checkpoint's step; False when that is the end of the run."""
        set_seed(self.settings.seed + self.accelerator.process_index)
        if saved is not None:
            self._restore(saved)
        self._rates = schedule(self.optimizer, self.settings, self.total, self._time_share, self.outcome.steps)
        self._batches = islice(
            self._all_batches(), self.outcome.steps * self.settings.gradient_accumulation_steps, None
        )
        self.log.write(
            "start" if saved is None else "resume",
            steps=self.total,
            examples=len(self.objective.lengths),
            step=self.outcome.steps,
        )
        progress.start(self.total, self.outcome.steps)
        self.adapter.train()
        return saved is None or self._go_on(progress)

    def save_is_due(self) -> bool:
        """Whether a checkpoint is due by the clock."""
        return time.monotonic() - self._saved_at > CHECKPOINT_S

    def next_batches(self) -> list[list[int]]:
        """The batches of the step to come."""
        return [next(self._batches) for _ in range(self.settings.gradient_accumulation_steps)]

    def finish_step(self, seen: Seen, seconds: float, progress: Lane) -> bool:
        """Move by the gradients, which took so many seconds, then evaluate and write a checkpoint where that is due.

        False at the end of the run. Raises TrainingError for a loss that is no number, KeyboardInterrupt, with a checkpoint
        written, when a signal asks to stop.
        """
        began = time.perf_counter()
        seen.check_finite(self.outcome.steps + 1, self.optimizer.param_groups[0]["lr"])
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.adapter.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._seen = seen
        self.outcome.count(seen, seconds + time.perf_counter() - began)
        if self.settings.max_minutes is not None:  # all processes end at the same step
            self.outcome.train_s = broadcast_object_list([self.outcome.train_s])[0]
        step = self.outcome.steps
        self.log.write("step", step=step, loss=round(seen.loss, 6), learning_rate=self._rates.get_last_lr()[0])
        self._rates.step()
        progress.step(step, seen.loss, seen.tokens)
        return self._go_on(progress)

    def end(self) -> None:
        """Leave the adapter in eval mode, in its best state."""
        self.adapter.eval()
        self.optimizer.zero_grad(set_to_none=True)
        if self._best:
            fill_adapter(self.adapter, self._best)

    def can_split(self, batches: list[list[int]]) -> bool:
        """Whether batches like these can be worked through in smaller pieces."""
        pieces_now = self.outcome.splits * self.accelerator.num_processes
        return self.objective.divisible and pieces_now < max(map(len, batches))

    def split(self, batches: list[list[int]]) -> None:
        """Halve the pieces that batches like these are worked through in; TrainingError when they cannot be halved."""
        largest = max(map(len, batches))
        rows = smaller_pieces(self.objective.divisible, largest, self.outcome.splits * self.accelerator.num_processes)
        self.outcome.splits *= 2
        step = self.outcome.steps + 1
        self.log.write("out_of_memory", step=step, rows=rows, splits=self.outcome.splits)
        warnings.warn(said_of_pieces(step, rows, self.outcome.splits), stacklevel=2)

    def _go_on(self, progress: Lane) -> bool:
        """What follows a step: evaluation, checkpoint, the end. False at the end of the run."""
        step = self.outcome.steps
        out_of_time = self._time_share() >= 1
        due = step == self.total or step % self._evaluate_every == 0 or out_of_time
        if due and self.outcome.evaluated_step < step and not self._evaluate(progress):
            return False
        if step == self.total or out_of_time:
            self.outcome.stopped = "finished" if step == self.total else "time"
            return False
        every = self.settings.checkpoint_every
        save = bool(due or self._seen.save) if every is None else step % every == 0
        stop = self._seen.stop or (self.accelerator.num_processes == 1 and self.signals.seen is not None)
        if save or stop:
            self.save()
        if stop:
            raise KeyboardInterrupt
        return True

    def _evaluate(self, progress: Lane) -> bool:
        """Evaluate, keep the state if it is the best; False when the run is to end here."""
        step, began, randomness = self.outcome.steps, time.perf_counter(), random_state()
        self.adapter.eval()
        try:
            with self.signals.at_once() if self.accelerator.num_processes == 1 else nullcontext():
                metrics = broadcast_object_list([self.objective.evaluate()])[0]
        except KeyboardInterrupt:
            set_random_state(randomness)
            self.save()
            raise
        self.adapter.train()
        self.outcome.eval_s += time.perf_counter() - began
        self.outcome.evaluations += 1
        self.outcome.evaluated_step = step
        self.log.write("eval", step=step, **metrics)
        progress.evaluated(step, metrics)
        if is_better(metrics, self.outcome.metrics, self.best_by, view_of(self.adapter.task).lower_is_better):
            self.outcome.stale, self.outcome.metrics, self.outcome.best_step = 0, metrics, step
            self._best = {name: tensor.clone() for name, tensor in adapter_tensors(self.adapter).items()}
        else:
            self.outcome.stale += 1
        if self.give_up(metrics):
            self.outcome.stopped = "given up"
        elif (
            self.settings.early_stopping_patience is not None
            and self.outcome.stale >= self.settings.early_stopping_patience
        ):
            self.outcome.stopped = "early"
        return self.outcome.stopped == "finished"

    def _time_share(self) -> float:
        """How much of `max_minutes` the steps so far have taken; 0 without that limit."""
        limit = self.settings.max_minutes
        return 0.0 if limit is None else min(1.0, self.outcome.train_s / (60 * limit))

    def save(self) -> None:
        """Write a checkpoint of the end of this step, unless there is one."""
        step = self.outcome.steps
        if self.checkpoints is None or not self.settings.keep_checkpoints or self._saved_step == step:
            return
        self._saved_step, self._saved_at = step, time.monotonic()
        randomness = gather_object([random_state()])
        if self.accelerator.is_main_process:
            values = {"random": randomness, "events": self.log.mark()}
            self.checkpoints.write(captured(self.adapter, self._best, self.optimizer, self.outcome, values))
            self.log.write("checkpoint", step=step, seconds=round(time.monotonic() - self._saved_at, 3))

    def _restore(self, saved: Checkpoint) -> None:
        self.outcome = Outcome(**saved.state["outcome"])
        self._saved_step = self.outcome.steps
        self._best = {name: tensor.to(self.accelerator.device) for name, tensor in saved.tensors["best"].items()}
        fill_adapter(self.adapter, saved.tensors["adapter"])
        fill_optimizer(self.optimizer, saved.tensors["optimizer"], saved.state["optimizer"])
        if self.objective.remembers:
            self._recall()
        set_random_state(saved.state["random"][self.accelerator.process_index])

    def _recall(self) -> None:
        """Bring back what the objective remembers of the first epoch, from the same batches: other shapes round otherwise."""
        batches, accumulation = self._all_batches(), self.settings.gradient_accumulation_steps
        first_epoch = math.ceil(math.ceil(len(self.objective.lengths) / self.settings.batch_size) / accumulation)
        with torch.no_grad():
            for _ in range(min(self.outcome.steps, first_epoch)):
                chosen = list(islice(batches, accumulation))
                for rows, _ in pieces(self.objective, chosen, self.outcome.splits, self.accelerator):
                    self.objective.loss(rows)

    def _all_batches(self) -> Iterator[list[int]]:
        """Row numbers, epoch after epoch, without end."""
        epoch = 0
        while True:
            yield from length_batches(self.objective.lengths, self.settings.batch_size, self.settings.seed + epoch)
            epoch += 1
