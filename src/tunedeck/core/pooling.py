"""What is read of a text's last hidden states."""

from __future__ import annotations

from typing import Literal, TypeAlias

Pooling = Literal["mean", "first", "last"]
"""The mean of the positions, the first or the last."""
HeadPooling: TypeAlias = Pooling | Literal["model"]
"""What a head reads; "model" is what the head that transformers gives the model reads."""
