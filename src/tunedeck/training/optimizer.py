"""AdamW over an adapter's parameters, and the learning rate over a run."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from tunedeck.deck.adapter import Adapter
from tunedeck.training.config import TrainingSettings


def adamw(adapter: Adapter, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW; biases, norms and virtual tokens are not decayed."""
    parameters = list(adapter.parameters())
    prompt = [p for placement in adapter.built.placements.values() for p in placement.layer.parameters()]
    undecayed = {id(p) for p in prompt} if adapter.built.virtual_tokens else set()
    undecayed |= {id(p) for p in parameters if p.dim() < 2}
    groups = [
        {"params": [p for p in parameters if id(p) not in undecayed], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if id(p) in undecayed], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate or adapter.config.learning_rate
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=True)


def schedule(optimizer: torch.optim.Optimizer, settings: TrainingSettings, total_steps: int) -> LambdaLR:
    """Linear warm-up over `warmup` of the steps, then cosine or linear to zero, or constant."""
    warmup_steps = math.ceil(settings.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        if settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if settings.schedule == "linear" else 1.0

    return LambdaLR(optimizer, factor)
