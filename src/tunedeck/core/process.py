"""Which of several processes this is."""

from __future__ import annotations

import os


def process_rank() -> int:
    """This process's number among all that `torchrun` or `accelerate launch` started; 0, the only one that prints and writes, else."""
    return int(os.environ.get("RANK", "0"))
