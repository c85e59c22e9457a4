"""Choose the device, precision and attention that suit the machine."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from tunedeck.core.compat.torch import cpu_features
from tunedeck.core.errors import ConfigError, ModelError
from tunedeck.core.i18n import listing, say

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Dtype = Literal["auto", "checkpoint", "float32", "bfloat16", "float16"]


def choose_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is a GPU where there is one. Raises ConfigError for an unknown name."""
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ModelError(say("unknown device {device!r}; use auto, cpu or cuda", device=device)) from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """Return the precision of that name; `auto` is bfloat16 where the hardware multiplies it natively, else float32.

    On a GPU without bfloat16 it is float16. Raises ConfigError for an unknown name.
    """
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise ConfigError(
            say(
                "unknown dtype {dtype!r}, choose one of: {known}",
                dtype=dtype,
                known=listing(["auto", "checkpoint", *DTYPES]),
            )
        )
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32


def stored_dtype(config: Any) -> torch.dtype:
    """Return the precision that a transformers config names, float32 where it names none."""
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32


def choose_attention(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return `eager` for bfloat16 on a CPU, where torch's flash kernel is several times slower, else None.

    None leaves the choice to transformers, which takes `sdpa` for every model that has it.
    """
    return "eager" if device.type == "cpu" and dtype == torch.bfloat16 else None


def cpu_has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    features = cpu_features()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
