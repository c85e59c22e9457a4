"""One step by several processes: each works on its part of the batches, and the gradients are added up.

The adapter's parameters are few and live outside the model, whose hooks call them: there is no module whose forward
pass DDP could wrap. One sum of all gradients when a step's backward passes are done is what DDP with `no_sync` comes
to, and it is the very step that one process would take.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Sequence
from dataclasses import astuple

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tunedeck.core.compat.accelerate import fsdp_is_requested
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.run_length import CPU_POSITIONS
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Objective
from tunedeck.training.state import StepStats


def joined(device: torch.device) -> Accelerator:
    """Return the other processes, if there are any, as accelerate sees them; left again when this process ends."""
    accelerator = Accelerator(cpu=device.type == "cpu")
    if accelerator.num_processes > 1:
        atexit.unregister(_leave)  # of an earlier run in this process
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def micro_batches(
    objective: Objective, batches: Sequence[Sequence[int]], splits: int, accelerator: Accelerator
) -> list[tuple[Sequence[int], float]]:
    """Return this process's part of some batches: row numbers, and their share of the mean loss.

    Each batch is cut as `micro_batch_count` says. All processes have the same number of micro-batches, as a sharded
    base needs it; one that only fills up has no share in the loss.
    """
    cut: list[Sequence[int]] = []
    for rows in batches:
        count = micro_batch_count(objective, rows, splits, accelerator)
        cut += [rows[part::count] for part in range(count)]
    weights = [(rows, objective.weight(rows)) for rows in cut if rows]
    whole = sum(weight for _, weight in weights)
    shares = [(rows, weight / whole) for rows, weight in weights]
    missing = -len(shares) % accelerator.num_processes
    filled = [*shares, *[(shares[0][0], 0.0)] * missing]
    return filled[accelerator.process_index :: accelerator.num_processes]


def micro_batch_count(objective: Objective, rows: Sequence[int], splits: int, accelerator: Accelerator) -> int:
    """Return the number of micro-batches, of all processes together, that a batch is cut into: `splits` times as many
    as it needs.

    A batch whose loss is not the mean of its parts stays whole. On a CPU no part has more than CPU_POSITIONS, as far
    as cutting helps.
    """
    if not objective.divisible:
        return 1
    processes = int(accelerator.num_processes)
    if accelerator.device.type != "cpu":
        return splits * processes
    share = -(-len(rows) // processes)
    positions = share * max(objective.lengths[row] for row in rows)
    return splits * processes * min(share, math.ceil(positions / CPU_POSITIONS))


def summed(parameters: Sequence[nn.Parameter], stats: StepStats, accelerator: Accelerator) -> StepStats:
    """Add up gradients in place, and what the step counts, over all processes; a parameter without a gradient anywhere
    keeps none.
    """
    if accelerator.num_processes == 1:
        return stats
    has_gradient = [float(parameter.grad is not None) for parameter in parameters]
    own = torch.tensor([*astuple(stats), *has_gradient], dtype=torch.float64, device=accelerator.device)
    numbers = accelerator.reduce(own, "sum").tolist()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
    parts = flat.split([parameter.numel() for parameter in parameters])
    values = astuple(stats)
    for parameter, part, anywhere in zip(parameters, parts, numbers[len(values) :], strict=True):
        parameter.grad = part.view_as(parameter) if anywhere else None
    return StepStats(*(type(value)(number) for value, number in zip(values, numbers, strict=False)))


def is_sharded(accelerator: Accelerator) -> bool:
    """Tell whether `accelerate launch --use_fsdp` asks to cut the base among the processes."""
    return accelerator.num_processes > 1 and fsdp_is_requested()


def shard_base(deck: Deck, adapter: str, accelerator: Accelerator) -> None:
    """Cut the base's layers among the processes by FSDP2; each is put together for its forward and backward pass
    only.

    The adapter stays whole in every process. Raises ConfigError for full fine-tuning, which puts whole tensors in the
    base's place, for quantized weights, and for an architecture whose layers are not known.
    """
    base, layers = deck.base, deck.base.layers
    if layers is None or base.quantize is not None or deck.adapter(adapter).built.weights:
        raise ConfigError(
            say(
                "a sharded base takes lora, bottleneck adapters, prompt tuning and heads, on a known "
                "architecture and without "
                "quantize; leave --use_fsdp out"
            )
        )
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in layers:
        if not isinstance(layer, FSDPModule):
            sharded = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            sharded.unshard()  # its buffers are made here, not first in an evaluation, whose tensors know no gradients
            sharded.reshard()
