"""One step by several processes: each works on its part of the batches, and the gradients are added up.

The adapter's parameters are few and live outside the model, whose hooks call them, so that DDP's wrapper has no forward pass
to watch. One sum of all gradients when a step's backward passes are done is what DDP with `no_sync` comes to, and it gives
the very step that one process would take.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple

import torch
from accelerate import Accelerator
from torch import nn

from tunedeck.training.outcome import Seen


def process_rank() -> int:
    """This process's number among all that `torchrun` or `accelerate launch` started; 0 prints and writes."""
    return int(os.environ.get("RANK", "0"))


def pieces(
    batches: Sequence[Sequence[int]], divisible: bool, splits: int, accelerator: Accelerator
) -> list[Sequence[int]]:
    """This process's share of some batches, each cut into `splits` pieces for each process.

    Batches whose loss is not the mean of its parts stay whole and are dealt out among the processes.
    """
    count = splits * accelerator.num_processes
    cut = [rows[part::count] for rows in batches for part in range(count)] if divisible else batches
    return [rows for rows in cut if rows][accelerator.process_index :: accelerator.num_processes]


def summed(parameters: Sequence[nn.Parameter], seen: Seen, accelerator: Accelerator) -> Seen:
    """Add up gradients in place, and what was seen, over all processes; a parameter without a gradient anywhere keeps none."""
    if accelerator.num_processes == 1:
        return seen
    device = parameters[0].device
    has_gradient = [float(parameter.grad is not None) for parameter in parameters]
    numbers = torch.tensor([*astuple(seen), *has_gradient], dtype=torch.float64, device=device)
    numbers = accelerator.reduce(numbers, "sum").tolist()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
    parts = flat.split([parameter.numel() for parameter in parameters])
    count = len(astuple(seen))
    for parameter, part, anywhere in zip(parameters, parts, numbers[count:], strict=True):
        parameter.grad = part.view_as(parameter) if anywhere else None
    return Seen(*(type(was)(now) for was, now in zip(astuple(seen), numbers[:count], strict=True)))
