"""AdamW over an adapter's parameters, and the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR

from tunedeck.core.checks import require
from tunedeck.core.compat.bitsandbytes import import_bitsandbytes
from tunedeck.core.run_length import warmup_steps
from tunedeck.deck.adapter import Adapter
from tunedeck.training.config import TrainingSettings

FITTED_HEAD_RATE = 2e-3
"""The largest default learning rate of a head that begins as a solution: a larger one leaves it before the rest has
learned anything.
"""


def adamw(adapter: Adapter, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return AdamW, its states in 32 or 8 bits; biases, norms, virtual tokens and prefixes are not decayed.

    Raises ConfigError when 8-bit states are asked for and bitsandbytes is not there.
    """
    parameters = list(adapter.parameters())
    prompt = [p for placement in adapter.built.placements.values() for p in placement.layer.parameters()]
    before_text = adapter.built.virtual_tokens or adapter.built.prefix is not None
    undecayed = {id(p) for p in prompt} if before_text else set()
    undecayed |= {id(p) for p in parameters if p.dim() < 2}
    head = {id(p) for module in adapter.head.values() for p in module.parameters()}
    rate = settings.learning_rate or adapter.config.learning_rate
    head_rate = settings.head_learning_rate or (min(rate, FITTED_HEAD_RATE) if settings.head_init == "probe" else rate)
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in parameters if (id(p) in head, id(p) in undecayed) == (of_head, of_undecayed)],
            "weight_decay": 0.0 if of_undecayed else settings.weight_decay,
            "lr": head_rate if of_head else rate,
        }
        for of_head in (False, True)
        for of_undecayed in (False, True)
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw_8bit":
        return _eight_bit(groups, rate)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def _eight_bit(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    require("training.optimizer: adamw_8bit", ["bitsandbytes"], "'tunedeck[qlora]'")
    return cast(torch.optim.Optimizer, import_bitsandbytes().optim.AdamW8bit(groups, lr=rate))


def schedule(
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    total_steps: int,
    time_share: Callable[[], float] = lambda: 0.0,
    taken: int = 0,
) -> LambdaLR:
    """Return linear warm-up over the first steps, then cosine or linear to zero, or constant; `taken` steps are done
    already.

    `time_share` says how much of a time limit is used, 0 to 1; the rate is as far as the steps or the time, whichever
    is further.
    """
    warmup = warmup_steps(settings.warmup_ratio, total_steps)

    def factor(done_steps: int) -> float:
        step = max(done_steps, int(time_share() * total_steps))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        if settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if settings.schedule == "linear" else 1.0

    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, factor, last_epoch=taken - 1)
