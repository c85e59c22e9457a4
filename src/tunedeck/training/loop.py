"""The training loop, in the open: batches in, one adapter trained, the best state kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, final

import torch
from accelerate import Accelerator
from torch import nn

from tunedeck.core.errors import ConfigError, TrainingError
from tunedeck.core.messages import say
from tunedeck.data.batches import length_batches
from tunedeck.data.labelled import Example
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.deck import Deck
from tunedeck.tasks.classify import Classify, classify_logits
from tunedeck.tasks.text import length_limit, pad, tokenize
from tunedeck.training.config import TrainingSettings
from tunedeck.training.dataset import Dataset
from tunedeck.training.events import EventLog
from tunedeck.training.metrics import classification_metrics, targets_of
from tunedeck.training.optimizer import adamw, schedule
from tunedeck.training.progress import Progress


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
    step_seconds: list[float] = field(default_factory=list)
    eval_s: float = 0.0
    stopped: str = "finished"
    """"finished", "early" when patience ran out, or "interrupted" by Ctrl-C."""

    @property
    def train_s(self) -> float:
        """Seconds in training steps."""
        return sum(self.step_seconds)

    @property
    def step_s(self) -> float:
        """Median seconds of a step."""
        return median(self.step_seconds) if self.step_seconds else 0.0


@final
class Loop:
    """Trains one adapter of a deck on a dataset; the base stays frozen and in eval mode."""

    def __init__(self, deck: Deck, name: str, dataset: Dataset, settings: TrainingSettings, log: EventLog) -> None:
        self.deck = deck
        self.adapter: Adapter = deck.adapter(name)
        assert isinstance(self.adapter.task, Classify)
        self.task: Classify = self.adapter.task
        self.dataset = dataset
        self.settings = settings
        self.log = log
        self.outcome = Outcome()
        self._best: dict[str, torch.Tensor] | None = None
        self._stale = 0

    def run(self, progress: Progress) -> Outcome:
        """Train and evaluate; afterwards the adapter holds its best state. Ctrl-C ends early and keeps the best so far.

        Raises TrainingError when the loss is no longer a number, with the adapter at its best state before that.
        """
        batches = self._epochs()
        total = self.settings.max_steps or max(1, round(self.settings.epochs * self._steps_per_epoch()))
        evaluate_every = self.settings.eval_every or self._steps_per_epoch()
        accelerator = Accelerator(cpu=next(self.deck.model.parameters()).device.type == "cpu")
        optimizer = adamw(self.adapter, self.settings)
        rates = schedule(optimizer, self.settings, total)
        self.log.write("start", steps=total, examples=len(self.dataset.train))
        progress.start(total)
        self.adapter.train()
        try:
            torch.manual_seed(self.settings.seed)
            for step in range(1, total + 1):
                loss = self._step(batches, accelerator, optimizer)
                rates.step()
                progress.step(step, loss)
                self.log.write("step", step=step, loss=round(loss, 6), learning_rate=rates.get_last_lr()[0])
                if (step % evaluate_every == 0 or step == total) and self._evaluate(step, progress):
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
        examples = sum(len(rows) for rows in chosen)
        total = 0.0
        for rows in chosen:
            ids, mask = pad(self.deck, [self._ids[row] for row in rows])
            logits = self.deck(ids, mask, adapter=self.adapter.name).logits
            loss = self.task.loss(logits, self._targets[rows].to(logits.device)) * (len(rows) / examples)
            if not math.isfinite(value := loss.item()):
                raise TrainingError(
                    say(
                        "the loss is {value} at step {step}; lower the learning rate (now {rate:g}) or use dtype float32",
                        value=value,
                        step=self.outcome.steps + 1,
                        rate=optimizer.param_groups[0]["lr"],
                    )
                )
            accelerator.backward(loss)
            total += value
            self.outcome.tokens += sum(len(self._ids[row]) for row in rows)
            self.outcome.positions += ids.numel()
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.adapter.parameters(), self.settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.outcome.steps += 1
        self.outcome.examples += examples
        self.outcome.step_seconds.append(time.perf_counter() - began)
        return total

    def _evaluate(self, step: int, progress: Progress) -> bool:
        """Evaluate, keep the state if it is the best; True when patience has run out."""
        began = time.perf_counter()
        self.adapter.eval()
        metrics = evaluate(self.deck, self.adapter.name, self.dataset.evaluation)
        self.adapter.train()
        self.outcome.eval_s += time.perf_counter() - began
        self.outcome.evaluations += 1
        self.log.write("eval", step=step, **metrics)
        progress.evaluated(step, metrics)
        if self._better(metrics):
            self._stale = 0
            self.outcome.metrics, self.outcome.best_step = metrics, step
            self._best = {name: p.detach().clone() for name, p in self.adapter.named_parameters()}
            return False
        self._stale += 1
        if self.settings.patience is not None and self._stale >= self.settings.patience:
            self.outcome.stopped = "early"
            return True
        return False

    def _better(self, metrics: dict[str, float]) -> bool:
        key = self.settings.best_by
        if not self.outcome.metrics:
            return True
        sign = -1 if key == "loss" else 1
        return sign * metrics[key] > sign * self.outcome.metrics[key]

    def _restore_best(self) -> None:
        if self._best is not None:
            with torch.no_grad():
                for name, parameter in self.adapter.named_parameters():
                    parameter.copy_(self._best[name])

    def _epochs(self) -> Iterator[list[int]]:
        """Batches of row numbers, epoch after epoch, without end."""
        limit = min(self.task.max_length, length_limit(self.deck)) - self.adapter.built.virtual_tokens
        if limit < 3:
            raise ConfigError(say("max_length leaves no room for text beside the virtual tokens; raise it"))
        self._ids = tokenize(self.deck, [example.text for example in self.dataset.train], limit)
        self._targets = targets_of(self.task, [example.labels for example in self.dataset.train])

        def endless() -> Iterator[list[int]]:
            epoch = 0
            while True:
                lengths = [len(ids) for ids in self._ids]
                yield from length_batches(lengths, self.settings.batch_size, self.settings.seed + epoch)
                epoch += 1

        return endless()

    def _steps_per_epoch(self) -> int:
        batches = math.ceil(len(self.dataset.train) / self.settings.batch_size)
        return max(1, batches // self.settings.accumulation)


def evaluate(deck: Deck, name: str, examples: list[Example]) -> dict[str, float]:
    """Metrics of an adapter on labelled examples: accuracy, macro_f1, micro_f1, loss."""
    task: Any = deck.adapter(name).task
    logits = classify_logits(deck, [example.text for example in examples], [name] * len(examples), task.max_length)
    targets = targets_of(task, [example.labels for example in examples])
    return classification_metrics(task, torch.stack(logits), targets)
