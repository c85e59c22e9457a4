"""Which of two evaluations is better."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say


def is_better(
    metrics: Mapping[str, float], before: Mapping[str, float], best_by: str, lower_is_better: frozenset[str]
) -> bool:
    """Whether `metrics` beat those `before`, if there are any; where they are equal by `best_by`, a lower loss decides.

    Raises ConfigError when there is no metric of that name.
    """
    if best_by not in metrics:
        raise ConfigError(
            say("training.best_by must be one of {allowed}, got {value!r}", allowed=listing(metrics), value=best_by)
        )
    if not before:
        return True
    now, then = metrics[best_by], before[best_by]
    if now == then:
        return metrics.get("loss", inf) < before.get("loss", inf)
    return now < then if best_by in lower_is_better else now > then
