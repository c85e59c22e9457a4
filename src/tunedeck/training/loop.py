"""The training loop, in the open: batches in, one adapter trained, the best state kept."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import final

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import nn

from tunedeck.core.errors import TrainingError
from tunedeck.core.messages import say
from tunedeck.data.batches import length_batches
from tunedeck.deck.adapter import Adapter
from tunedeck.tasks.base import Course
from tunedeck.training.best import is_better
from tunedeck.training.checkpoint import Checkpoint, Checkpoints
from tunedeck.training.config import TrainingSettings
from tunedeck.training.distributed import is_sharded, pieces, summed
from tunedeck.training.events import EventLog
from tunedeck.training.memory import free_cache, out_of_memory, smaller_pieces, told_as_training_error
from tunedeck.training.optimizer import adamw, schedule
from tunedeck.training.outcome import Outcome, Seen
from tunedeck.training.progress import Progress
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


@final
class Loop:
    """Trains one adapter through a course; the base stays frozen and in eval mode. `best_by` tells the best state."""

    def __init__(
        self,
        adapter: Adapter,
        course: Course,
        settings: TrainingSettings,
        best_by: str,
        log: EventLog,
        accelerator: Accelerator,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.adapter = adapter
        self.course = course
        self.settings = settings
        self.best_by = best_by
        self.log = log
        self.accelerator = accelerator
        self.checkpoints = checkpoints
        self.signals = StopSignals()
        self.outcome = Outcome()
        self.optimizer = adamw(adapter, settings)
        per_epoch = max(1, math.ceil(len(course.lengths) / settings.batch_size) // settings.accumulation)
        self.total = settings.max_steps or max(1, round(settings.epochs * per_epoch))
        self._evaluate_every = settings.eval_every or per_epoch
        self._seen = Seen()
        self._best: dict[str, torch.Tensor] = {}
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def run(self, progress: Progress, saved: Checkpoint | None = None) -> Outcome:
        """Train and evaluate, from a checkpoint on where one is given; afterwards the adapter holds its best state.

        Ctrl-C and SIGTERM write a checkpoint, end early and keep the best so far. Raises TrainingError when the loss is no
        longer a number or memory does not suffice, StorageError when the disk refuses, with the best state before that.
        """
        try:
            with self.signals, told_as_training_error():
                going = self.begin(progress, saved)
                while going:
                    going = self.step(progress)
        except KeyboardInterrupt:
            self.outcome.stopped = self.signals.stopped
        except TrainingError as error:
            self.outcome.stopped = "failed"
            self.log.write("failed", step=self.outcome.steps, reason=str(error))
            raise
        finally:
            self.end()
        self.log.write("end", stopped=self.outcome.stopped, step=self.outcome.steps)
        return self.outcome

    def begin(self, progress: Progress, saved: Checkpoint | None) -> bool:
        """Set out, or go on from the end of a checkpoint's step; False when that is the end of the run."""
        set_seed(self.settings.seed + self.accelerator.process_index)
        if saved is not None:
            self._restore(saved)
        self._rates = schedule(self.optimizer, self.settings, self.total, self.outcome.steps)
        self._batches = islice(self._all_batches(), self.outcome.steps * self.settings.accumulation, None)
        self.log.write(
            "start" if saved is None else "resume",
            steps=self.total,
            examples=len(self.course.lengths),
            step=self.outcome.steps,
        )
        progress.start(self.total, self.outcome.steps)
        self.adapter.train()
        return saved is None or self._go_on(progress)

    def step(self, progress: Progress) -> bool:
        """Take a step, then evaluate and write a checkpoint where that is due; False at the end of the run."""
        loss = self._step(self._batches)
        self.log.write("step", step=self.outcome.steps, loss=round(loss, 6), learning_rate=self._rates.get_last_lr()[0])
        self._rates.step()
        progress.step(self.outcome.steps, loss, self._seen.tokens)
        return self._go_on(progress)

    def end(self) -> None:
        """Leave the adapter in eval mode, in its best state."""
        self.adapter.eval()
        if self._best:
            fill_adapter(self.adapter, self._best)

    def _step(self, batches: Iterator[list[int]]) -> float:
        """One optimizer step over `accumulation` batches; returns the mean loss. Out of memory, it begins again in smaller pieces."""
        began = time.perf_counter()
        chosen = [next(batches) for _ in range(self.settings.accumulation)]
        seen = self._gradients(chosen)
        while seen.out_of_memory:
            self._split(max(map(len, chosen)))
            seen = self._gradients(chosen)
        self._check_finite(seen.loss)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.adapter.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._seen = seen
        self.outcome.count(seen, time.perf_counter() - began)
        return seen.loss

    def _gradients(self, chosen: list[list[int]]) -> Seen:
        """The gradient of the mean loss over some batches, and what was seen on the way."""
        seen = Seen()
        try:
            for rows, share in pieces(self.course, chosen, self.outcome.splits, self.accelerator):
                mean, positions = self.course.loss(rows)
                loss = mean * share
                self.accelerator.backward(loss)
                seen.add(loss.item(), len(rows), sum(self.course.lengths[row] for row in rows), positions, share)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or is_sharded(
                self.accelerator
            ):  # a base put together by all waits for each of them
                raise
            seen.out_of_memory = 1
        seen.stop = int(self.signals.seen is not None)
        seen.save = int(self.accelerator.is_main_process and time.monotonic() - self._saved_at > CHECKPOINT_S)
        return summed(list(self.adapter.parameters()), seen, self.accelerator)

    def _split(self, largest: int) -> None:
        """Halve the pieces that batches are worked through in; TrainingError when they cannot be halved."""
        self.optimizer.zero_grad(set_to_none=True)
        free_cache()
        rows = smaller_pieces(self.course.divisible, largest, self.outcome.splits * self.accelerator.num_processes)
        self.outcome.splits *= 2
        step = self.outcome.steps + 1
        self.log.write("out_of_memory", step=step, rows=rows, splits=self.outcome.splits)
        text = say(
            "out of memory at step {step}: batches are worked through in pieces of {rows} from here on, {splits} to a batch; the steps stay the same",
            step=step,
            rows=rows,
            splits=self.outcome.splits,
        )
        warnings.warn(text, stacklevel=2)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                say(
                    "the loss is {value} at step {step}; lower the learning rate (now {rate:g})",
                    value=loss,
                    step=self.outcome.steps + 1,
                    rate=self.optimizer.param_groups[0]["lr"],
                )
            )

    def _go_on(self, progress: Progress) -> bool:
        """What follows a step: evaluation, checkpoint, the end. False at the end of the run."""
        step = self.outcome.steps
        due = step == self.total or step % self._evaluate_every == 0
        if due and self.outcome.evaluated_step < step and not self._evaluate(progress):
            self.outcome.stopped = "early"
            return False
        if step == self.total:
            return False
        every = self.settings.checkpoint_every
        save = bool(due or self._seen.save) if every is None else step % every == 0
        if save or self._seen.stop:
            self._save()
        if self._seen.stop:
            raise KeyboardInterrupt
        return True

    def _evaluate(self, progress: Progress) -> bool:
        """Evaluate, keep the state if it is the best; False when patience has run out."""
        step, began, randomness = self.outcome.steps, time.perf_counter(), random_state()
        self.adapter.eval()
        try:
            with self.signals.at_once() if self.accelerator.num_processes == 1 else nullcontext():
                metrics = broadcast_object_list([self.course.evaluate()])[0]
        except KeyboardInterrupt:
            set_random_state(randomness)
            self._save()
            raise
        self.adapter.train()
        self.outcome.eval_s += time.perf_counter() - began
        self.outcome.evaluations += 1
        self.outcome.evaluated_step = step
        self.log.write("eval", step=step, **metrics)
        progress.evaluated(step, metrics)
        if is_better(metrics, self.outcome.metrics, self.best_by):
            self.outcome.stale, self.outcome.metrics, self.outcome.best_step = 0, metrics, step
            self._best = {name: tensor.clone() for name, tensor in adapter_tensors(self.adapter).items()}
        else:
            self.outcome.stale += 1
        return self.settings.patience is None or self.outcome.stale < self.settings.patience

    def _save(self) -> None:
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
        set_random_state(saved.state["random"][self.accelerator.process_index])

    def _all_batches(self) -> Iterator[list[int]]:
        """Row numbers, epoch after epoch, without end."""
        epoch = 0
        while True:
            yield from length_batches(self.course.lengths, self.settings.batch_size, self.settings.seed + epoch)
            epoch += 1
