"""LoRA as programs that know no other method take it."""

from __future__ import annotations

from tunedeck.methods.base import MethodConfig
from tunedeck.methods.lora.config import LoraConfig


def low_rank(config: MethodConfig) -> LoraConfig | None:
    """Return the config where the adapter is a LoRA, whose patch of a linear is scaling · B A; else None.

    Its tensors are `<path>.lora_A` (rank, in) and `<path>.lora_B` (out, rank).
    """
    return config if isinstance(config, LoraConfig) else None
