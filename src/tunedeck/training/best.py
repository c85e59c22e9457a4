"""Which of two evaluations is better."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say


def is_better(metrics: Mapping[str, float], before: Mapping[str, float], best_by: str) -> bool:
    """Whether `metrics` beat those `before`, if there are any: a lower `loss`, a higher value of anything else, with a lower loss where those are equal.

    Raises ConfigError when there is no metric of that name.
    """
    if best_by not in metrics:
        raise ConfigError(
            say("training.best_by must be one of {allowed}, got {value!r}", allowed=listing(metrics), value=best_by)
        )
    if not before:
        return True
    if best_by == "loss" or metrics[best_by] == before[best_by]:
        return metrics.get("loss", inf) < before.get("loss", inf)
    return metrics[best_by] > before[best_by]
