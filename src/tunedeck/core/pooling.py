"""Name the ways to reduce a text's last hidden states to one vector."""

from __future__ import annotations

from typing import Literal, TypeAlias

Pooling = Literal["mean", "first", "last"]
"""The mean of the positions, the first or the last."""
HeadPooling: TypeAlias = Pooling | Literal["model"]
"""Input of a head; "model" is the input of the head that transformers defines for the model."""
