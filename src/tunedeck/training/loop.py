"""The training loop: `training_loop` is all of it, from the next batches to the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say
from tunedeck.training.distributed import is_sharded, micro_batches, summed
from tunedeck.training.signals import StopSignals
from tunedeck.training.state import Ended, StepStats
from tunedeck.training.trainer import AdapterTrainer

_TEXTS = ("DefaultCPUAllocator: can't allocate", "DefaultCPUAllocator: not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def training_loop(running: list[AdapterTrainer], signals: StopSignals) -> Iterator[tuple[AdapterTrainer, Ended]]:
    """Train adapters of one deck, step by step together, each to its end.

    Yields each trainer with what ended its run, and takes it out of `running`. A resumed run begins where it was
    interrupted, at the end of a step.
    """
    accelerator, several = running[0].accelerator, len(running) > 1
    while True:
        # What is due after the last step: evaluation, checkpoint, the end.
        for trainer in list(running):
            with named_in_errors(trainer, several):
                if trainer.evaluation_due():
                    trainer.evaluate(signals)
                ended = trainer.ended()
                if ended is None and trainer.checkpoint_due():
                    trainer.save_checkpoint()
            if ended is not None:
                running.remove(trainer)
                yield trainer, ended
        stop = signals.ended if accelerator.num_processes == 1 else agreed_stop(running)
        if stop is not None:
            for trainer in running:
                trainer.save_checkpoint()
            while running:
                yield running.pop(0), stop
        if not running:
            return

        # The gradients of the next step; out of memory, they are computed again from smaller micro-batches.
        began = time.perf_counter()
        batches = [trainer.next_batches() for trainer in running]
        out_of_memory = True
        while out_of_memory:
            for trainer in running:
                trainer.stats = StepStats()
            try:
                for micro_batch in side_by_side(running, batches):
                    accumulate_gradients(micro_batch, accelerator)
            except (RuntimeError, MemoryError) as error:
                # All processes wait for the parts of a sharded base, so none may start again alone.
                if not is_out_of_memory(error) or is_sharded(accelerator):
                    raise
                running[0].stats.out_of_memory = 1
            for trainer in running:  # flags are part of the sum: all processes decide alike
                trainer.stats.interrupted = int(signals.ended == "interrupted")
                trainer.stats.terminated = int(signals.ended == "terminated")
                trainer.stats.save = int(accelerator.is_main_process and trainer.checkpoint_overdue())
                trainer.stats = summed(trainer.parameters, trainer.stats, accelerator)
            out_of_memory = any(trainer.stats.out_of_memory for trainer in running)
            if out_of_memory:
                split_further(running, batches)
        seconds = time.perf_counter() - began

        # The step itself; the time that was shared is counted by positions.
        positions = sum(trainer.stats.positions for trainer in running)
        for trainer in running:
            with named_in_errors(trainer, several):
                trainer.optimizer_step(seconds * trainer.stats.positions / positions)


def train_to_end(trainers: Sequence[AdapterTrainer], signals: StopSignals) -> Iterator[AdapterTrainer]:
    """Begin or resume the runs of adapters of one deck; yield each when it has ended, its adapter in its best state.

    `state.stopped` says what ended a run. The first Ctrl-C or SIGTERM ends all after this step, with checkpoints; a
    second Ctrl-C ends them at once, without. Raises TrainingError when a loss is not a finite number or memory does not
    suffice, StorageError when the disk refuses; runs that have been evaluated before are yielded first, as "failed".
    """
    with as_training_error():
        for trainer in trainers:
            trainer.begin()
    running = list(trainers)
    try:
        with as_training_error():
            for trainer, ended in training_loop(running, signals):
                trainer.end(ended)
                yield trainer
    except KeyboardInterrupt:
        for trainer in running:
            trainer.end(signals.ended or "interrupted")
            yield trainer
    except Exception as error:
        for trainer in running:
            trainer.fail(error)
            if isinstance(error, TrainingError) and trainer.state.metrics:
                yield trainer
        raise


class MicroBatch(NamedTuple):
    """The examples of one adapter in one pass: row numbers, and their share of the step's mean loss."""

    trainer: AdapterTrainer
    rows: Sequence[int]
    share: float


def side_by_side(running: Sequence[AdapterTrainer], batches: Sequence[list[list[int]]]) -> Iterator[list[MicroBatch]]:
    """Return this process's micro-batches of a step, those of all adapters at the same place together."""
    shares = [
        micro_batches(trainer.objective, chosen, trainer.state.splits, trainer.accelerator)
        for trainer, chosen in zip(running, batches, strict=True)
    ]
    for place in zip_longest(*shares):
        yield [MicroBatch(trainer, *part) for trainer, part in zip(running, place, strict=True) if part is not None]


def accumulate_gradients(parts: Sequence[MicroBatch], accelerator: Accelerator) -> None:
    """Add the gradients of some micro-batches, one of each adapter, and count them; one backward pass for all."""
    losses = shared_losses(parts)
    total: Any = sum(mean * part.share for (mean, _), part in zip(losses, parts, strict=True))
    accelerator.backward(total)
    for (mean, positions), part in zip(losses, parts, strict=True):
        tokens = sum(part.trainer.objective.lengths[row] for row in part.rows)
        part.trainer.stats.add(mean.item() * part.share, len(part.rows), tokens, positions, part.share)


def shared_losses(parts: Sequence[MicroBatch]) -> list[tuple[torch.Tensor, int]]:
    """Return the mean loss of each micro-batch and the positions it took, from one pass through the base for all
    adapters.

    An adapter with tensors in the base's place takes a pass alone.
    """
    together = [part for part in parts if not part.trainer.adapter.built.weights]
    if len(together) < 2:
        return [part.trainer.objective.loss(part.rows) for part in parts]
    shared = iter(together[0].trainer.objective.losses([(part.trainer.objective, part.rows) for part in together]))
    return [
        part.trainer.objective.loss(part.rows) if part.trainer.adapter.built.weights else next(shared) for part in parts
    ]


def split_further(running: Sequence[AdapterTrainer], batches: Sequence[list[list[int]]]) -> None:
    """Cut the batches of every run into smaller micro-batches where that is possible; TrainingError where it is not for
    any.
    """
    for trainer in running:
        trainer.optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # blocks that are now of the wrong size
    pairs = list(zip(running, batches, strict=True))
    for trainer, chosen in [pair for pair in pairs if pair[0].can_split(pair[1])] or pairs:
        trainer.split(chosen)


def agreed_stop(running: Sequence[AdapterTrainer]) -> Ended | None:
    """Return the reason to end the runs of all processes after this step.

    It is a signal that one of them received before the gradients were summed.
    """
    return next((trainer.stats.signal for trainer in running if trainer.stats.signal), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether torch, on a GPU or on the CPU, or Python could not get memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


@contextmanager
def as_training_error() -> Iterator[None]:
    """Raise TrainingError when memory runs out where smaller micro-batches do not help."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            say(
                "out of memory even with smaller micro-batches; use a smaller evaluation set, a smaller "
                "adapter or a quantized base"
            )
        ) from error


@contextmanager
def named_in_errors(trainer: AdapterTrainer, several: bool) -> Iterator[None]:
    """Let a TrainingError name the run, where there are several."""
    try:
        yield
    except TrainingError as error:
        if not several:
            raise
        raise TrainingError(say("{run}: {reason}", run=trainer.adapter.name, reason=error)) from error
