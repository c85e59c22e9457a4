"""What an adapter's probabilities are worth: stored in tunedeck.json and in an ONNX export's settings.json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Confidence(BaseModel):
    """How an adapter's logits become probabilities."""

    model_config = ConfigDict(frozen=True)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Logits are divided by it (Guo et al., arXiv 1706.04599)."""
