"""The training loop, in the open: batches in, one adapter trained, the best state kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias, final

import torch
from accelerate import Accelerator
from torch import nn

from tunedeck.core.errors import ConfigError, TrainingError
from tunedeck.core.messages import listing, say
from tunedeck.data.batches import length_batches
from tunedeck.deck.adapter import Adapter
from tunedeck.tasks.base import Course
from tunedeck.training.config import TrainingSettings
from tunedeck.training.events import EventLog
from tunedeck.training.optimizer import adamw, schedule
from tunedeck.training.progress import Progress

GiveUp: TypeAlias = Callable[[dict[str, float]], bool]
"""Given the metrics of each evaluation, says whether to end the run there."""


@dataclass
class Outcome:
    """What the loop saw: the best metrics, and the time and tokens it took."""

    metrics: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    evaluations: int = 0
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    positions: int = 0
    largest_batch_positions: int = 0
    step_seconds: list[float] = field(default_factory=list)
    train_s: float = 0.0
    """Seconds in training steps."""
    eval_s: float = 0.0
    stopped: str = "finished"
    """"finished", "early" when patience ran out, "time" when max_minutes were over, "given up" by
    `give_up`, or "interrupted" by Ctrl-C."""

    @property
    def step_s(self) -> float:
        """Median seconds of a step."""
        return median(self.step_seconds) if self.step_seconds else 0.0


@final
class Loop:
    """Trains one adapter through a course; the base stays frozen and in eval mode.

    `best_by` tells the best state; `give_up` may end the run after an evaluation.
    """

    def __init__(
        self,
        adapter: Adapter,
        course: Course,
        settings: TrainingSettings,
        best_by: str,
        log: EventLog,
        give_up: GiveUp = lambda metrics: False,
    ) -> None:
        self.adapter = adapter
        self.course = course
        self.settings = settings
        self.best_by = best_by
        self.log = log
        self.give_up = give_up
        self.outcome = Outcome()
        self._best: dict[str, torch.Tensor] | None = None
        self._stale = 0

    def run(self, progress: Progress) -> Outcome:
        """Train and evaluate; afterwards the adapter holds its best state. Ctrl-C ends early and keeps the best so far.

        Raises TrainingError when the loss is no longer a number, with the adapter at its best state before that.
        """
        total = self.settings.max_steps or max(1, round(self.settings.epochs * self._steps_per_epoch()))
        evaluate_every = self.settings.eval_every or self._steps_per_epoch()
        accelerator = Accelerator(cpu=next(self.adapter.parameters()).device.type == "cpu")
        optimizer = adamw(self.adapter, self.settings)
        rates = schedule(optimizer, self.settings, total, self._time_share)
        batches = self._batches()
        self.log.write("start", steps=total, examples=len(self.course.lengths))
        progress.start(total)
        self.adapter.train()
        try:
            torch.manual_seed(self.settings.seed)
            for step in range(1, total + 1):
                loss = self._step(batches, accelerator, optimizer)
                self.log.write("step", step=step, loss=round(loss, 6), learning_rate=rates.get_last_lr()[0])
                rates.step()
                progress.step(step, loss)
                out_of_time = self._time_share() >= 1
                if (step % evaluate_every == 0 or step == total or out_of_time) and self._evaluate(step, progress):
                    break
                if out_of_time and step < total:
                    self.outcome.stopped = "time"
                    break
        except KeyboardInterrupt:
            self.outcome.stopped = "interrupted"
        finally:
            self.adapter.eval()
            self._restore_best()
        self.log.write("end", stopped=self.outcome.stopped, step=self.outcome.steps)
        return self.outcome

    def _step(self, batches: Iterator[list[int]], accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> float:
        """One optimizer step over `accumulation` batches; returns the mean loss."""
        began = time.perf_counter()
        chosen = [next(batches) for _ in range(self.settings.accumulation)]
        weights = [self.course.weight(rows) for rows in chosen]
        total = 0.0
        for rows, weight in zip(chosen, weights, strict=True):
            mean, positions = self.course.loss(rows)
            loss = mean * (weight / sum(weights))
            accelerator.backward(loss)
            total += self._finite(loss.item(), optimizer)
            self.outcome.examples += len(rows)
            self.outcome.tokens += sum(self.course.lengths[row] for row in rows)
            self.outcome.positions += positions
            self.outcome.largest_batch_positions = max(self.outcome.largest_batch_positions, positions)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.adapter.parameters(), self.settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.outcome.steps += 1
        self.outcome.step_seconds.append(time.perf_counter() - began)
        self.outcome.train_s += self.outcome.step_seconds[-1]
        return total

    def _time_share(self) -> float:
        """How much of `max_minutes` the steps so far have taken; 0 without that limit."""
        limit = self.settings.max_minutes
        return 0.0 if limit is None else min(1.0, self.outcome.train_s / (60 * limit))

    def _finite(self, loss: float, optimizer: torch.optim.Optimizer) -> float:
        if math.isfinite(loss):
            return loss
        raise TrainingError(
            say(
                "the loss is {value} at step {step}; lower the learning rate (now {rate:g})",
                value=loss,
                step=self.outcome.steps + 1,
                rate=optimizer.param_groups[0]["lr"],
            )
        )

    def _evaluate(self, step: int, progress: Progress) -> bool:
        """Evaluate, keep the state if it is the best; True when the run is to end here."""
        began = time.perf_counter()
        self.adapter.eval()
        metrics = self.course.evaluate()
        self.adapter.train()
        self.outcome.eval_s += time.perf_counter() - began
        self.outcome.evaluations += 1
        self.log.write("eval", step=step, **metrics)
        progress.evaluated(step, metrics)
        if self._better(metrics):
            self._stale = 0
            self.outcome.metrics, self.outcome.best_step = metrics, step
            self._best = {name: p.detach().clone() for name, p in self.adapter.named_parameters()}
        else:
            self._stale += 1
        if self.give_up(metrics):
            self.outcome.stopped = "given up"
            return True
        if self.settings.patience is not None and self._stale >= self.settings.patience:
            self.outcome.stopped = "early"
            return True
        return False

    def _better(self, metrics: dict[str, float]) -> bool:
        if self.best_by not in metrics:
            raise ConfigError(
                say(
                    "training.best_by must be one of {allowed}, got {value!r}",
                    allowed=listing(metrics),
                    value=self.best_by,
                )
            )
        if not self.outcome.metrics:
            return True
        sign = -1 if self.best_by == "loss" else 1
        return sign * metrics[self.best_by] > sign * self.outcome.metrics[self.best_by]

    def _restore_best(self) -> None:
        if self._best is not None:
            with torch.no_grad():
                for name, parameter in self.adapter.named_parameters():
                    parameter.copy_(self._best[name])

    def _batches(self) -> Iterator[list[int]]:
        """Row numbers, epoch after epoch, without end."""
        epoch = 0
        while True:
            yield from length_batches(self.course.lengths, self.settings.batch_size, self.settings.seed + epoch)
            epoch += 1

    def _steps_per_epoch(self) -> int:
        batches = math.ceil(len(self.course.lengths) / self.settings.batch_size)
        return max(1, batches // self.settings.accumulation)
