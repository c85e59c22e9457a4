"""The gradients of a step: of one adapter, or of several that share each pass through the base."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import torch

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say
from tunedeck.tasks.base import Objective
from tunedeck.training.checkpoint import Checkpoint
from tunedeck.training.distributed import is_sharded, pieces, summed
from tunedeck.training.loop import Loop
from tunedeck.training.memory import free_cache, out_of_memory, told_as_training_error
from tunedeck.training.outcome import Seen
from tunedeck.training.progress import Lane
from tunedeck.training.signals import StopSignals


def run_loops(
    loops: Mapping[str, Loop],
    saved: Mapping[str, Checkpoint | None],
    lanes: Mapping[str, Lane],
    finished: Callable[[Loop], None],
) -> None:
    """Train adapters of one deck, step by step together, each to its own end; afterwards each holds its best state.

    `finished` is called with each loop as soon as it has ended, and at last with those that were stopped: Ctrl-C and SIGTERM write
    checkpoints and end early. Raises TrainingError when a loss is no longer a number or memory does not suffice, StorageError
    when the disk refuses.
    """
    signals = StopSignals()
    going = dict(loops)
    try:
        with signals, told_as_training_error():
            for name, loop in loops.items():
                loop.signals = signals
                if not loop.begin(lanes[name], saved[name]):
                    _end(going.pop(name), finished)
            while going:
                _step_together(going, lanes, finished)
    except KeyboardInterrupt:
        for loop in going.values():
            loop.outcome.stopped = signals.stopped
            _end(loop, finished)
    except BaseException as error:
        for loop in going.values():
            loop.outcome.stopped = "failed"
            loop.end()
            if isinstance(error, TrainingError):
                loop.log.write("failed", step=loop.outcome.steps, reason=str(error))
                if loop.outcome.metrics:
                    finished(loop)
        raise


def _end(loop: Loop, finished: Callable[[Loop], None]) -> None:
    loop.end()
    loop.log.write("end", stopped=loop.outcome.stopped, step=loop.outcome.steps)
    finished(loop)


def _step_together(going: dict[str, Loop], lanes: Mapping[str, Lane], finished: Callable[[Loop], None]) -> None:
    """A step of every loop; those that end are taken out. Out of memory, it begins again in smaller pieces."""
    began = time.perf_counter()
    loops = list(going.values())
    chosen = [loop.next_batches() for loop in loops]
    seen = _gradients(loops, chosen)
    while any(one.out_of_memory for one in seen):
        _split(loops, chosen)
        seen = _gradients(loops, chosen)
    seconds = time.perf_counter() - began
    positions = sum(one.positions for one in seen)
    stopped = False
    for (name, loop), one in zip(list(going.items()), seen, strict=True):
        try:
            if not loop.finish_step(one, seconds * one.positions / positions, lanes[name]):
                _end(going.pop(name), finished)
        except KeyboardInterrupt:  # the others take their step, and write their checkpoints, too
            stopped = True
        except TrainingError as error:
            if len(loops) == 1:
                raise
            raise TrainingError(say("{run}: {reason}", run=name, reason=error)) from error
    if stopped:
        raise KeyboardInterrupt


def _split(loops: Sequence[Loop], chosen: Sequence[list[list[int]]]) -> None:
    """Smaller pieces for every loop whose batches can be cut; TrainingError when none can."""
    for loop in loops:
        loop.optimizer.zero_grad(set_to_none=True)
    free_cache()
    pairs = list(zip(loops, chosen, strict=True))
    for loop, batches in [pair for pair in pairs if pair[0].can_split(pair[1])] or pairs:
        loop.split(batches)


def _gradients(loops: Sequence[Loop], chosen: Sequence[list[list[int]]]) -> list[Seen]:
    """Gradients of each loop's mean loss over its batches, and what each has seen; all processes together."""
    accelerator = loops[0].accelerator
    seen = [Seen() for _ in loops]
    shares = [
        pieces(o.objective, batches, o.outcome.splits, accelerator) for o, batches in zip(loops, chosen, strict=True)
    ]
    try:
        for round_ in zip_longest(*shares):
            parts = [
                (loop, *piece, one) for loop, piece, one in zip(loops, round_, seen, strict=True) if piece is not None
            ]
            losses = _losses([(loop, rows) for loop, rows, _, _ in parts])
            total = sum(mean * share for (mean, _), (_, _, share, _) in zip(losses, parts, strict=True))
            accelerator.backward(total)
            for (mean, positions), (loop, rows, share, one) in zip(losses, parts, strict=True):
                tokens = sum(loop.objective.lengths[row] for row in rows)
                one.add(mean.item() * share, len(rows), tokens, positions, share)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or is_sharded(accelerator):  # a base put together by all waits for each of them
            raise
        seen[0].out_of_memory = 1
    for one, loop in zip(seen, loops, strict=True):
        one.stop = int(loop.signals.seen is not None)
        one.save = int(accelerator.is_main_process and loop.save_is_due())
    return [summed(list(loop.adapter.parameters()), one, accelerator) for loop, one in zip(loops, seen, strict=True)]


def _losses(parts: Sequence[tuple[Loop, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
    """The mean loss of each loop's rows and the positions they took: one pass for all, but for tensors in the base's place."""
    together = [part for part in parts if not part[0].adapter.built.weights]
    found: dict[int, tuple[torch.Tensor, int]] = {}
    if len(together) > 1:
        objectives: list[tuple[Objective, Sequence[int]]] = [(loop.objective, rows) for loop, rows in together]
        losses = objectives[0][0].losses(objectives)
        found = {id(loop): loss for (loop, _), loss in zip(together, losses, strict=True)}
    return [found[id(loop)] if id(loop) in found else loop.objective.loss(rows) for loop, rows in parts]
