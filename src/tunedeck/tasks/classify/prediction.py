"""An answer of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer: the likeliest label with its probability, and every label's; `labels` all above 0.5 when
    multi-label, or above their thresholds.

    `labels` is empty where the adapter abstains; `abstain` is then "unsure" or "none of these".
    """

    label: str
    score: float
    probabilities: Mapping[str, float]
    labels: tuple[str, ...]
    abstain: str | None = None

    def certain(self, multi_label: bool) -> Prediction:
        """Return the prediction without abstention where each text has one label."""
        return self if multi_label else replace(self, labels=(self.label,))
