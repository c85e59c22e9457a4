"""Training settings as version 0.1.0 named them, and what it did where it says nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import renamed, say

RENAMED = {
    "accumulation": "gradient_accumulation_steps",
    "best_by": "metric_for_best_model",
    "checkpointing": "gradient_checkpointing",
    "clip": "max_grad_norm",
    "eval_every": "eval_steps",
    "patience": "early_stopping_patience",
    "warmup": "warmup_ratio",
}
"""The present names of training settings by those of version 0.1.0, which are accepted for one release."""


UNSAID: Mapping[str, Any] = {"head_init": "random"}
"""Values of training settings that run folders and checkpoints of version 0.1.0 do not record."""


def with_current_names(training: Mapping[str, Any], note: bool = True) -> dict[str, Any]:
    """Return training settings under their present names; with `note`, each earlier name gets a warning.

    Raises ConfigError where a setting is given under both names.
    """
    found: dict[str, Any] = {}
    for key, value in training.items():
        name = RENAMED.get(key, key)
        if name in found or (name != key and name in training):
            raise ConfigError(say("{name} is given twice, as {key} too", name=name, key=key))
        if name != key and note:
            warnings.warn(renamed(f"training.{key}", f"training.{name}"), stacklevel=3)
        found[name] = value
    return found
