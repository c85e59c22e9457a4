"""LoRA as programs that know no other method take it."""

from __future__ import annotations

from tunedeck.methods.base import MethodConfig
from tunedeck.methods.lora.config import LoraConfig


def low_rank(config: MethodConfig) -> LoraConfig | None:
    """Return the config where the adapter is a plain LoRA, whose patch of a linear is scaling · B A; else None, also
    for DoRA, which scales the weight as well.

    Its tensors are `<path>.lora_A` (rank, in) and `<path>.lora_B` (out, rank).
    """
    return config if isinstance(config, LoraConfig) and not config.use_dora else None


def kind_name(config: MethodConfig) -> str:
    """Return the name of an adapter's kind for a message that only plain LoRA is taken."""
    return "DoRA" if isinstance(config, LoraConfig) and config.use_dora else config.kind
