"""The environment that accelerate's launcher sets up for the processes it starts, as of 1.15."""

from __future__ import annotations

import os


def fsdp_is_requested() -> bool:
    """Return whether this process was started by `accelerate launch --use_fsdp`."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
