"""The run file that carries out a plan's recommendation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_text
from tunedeck.core.values import to_values
from tunedeck.planner.advice import Recommendation
from tunedeck.planner.plan import PlanRow, Wish
from tunedeck.training.config import run_config


def write_run_file(path: Path, chosen: Recommendation | None, wish: Wish, data: str | None) -> None:
    """Write the run file, checked as `tunedeck train` will check it.

    Raises ConfigError when there is nothing to recommend, no data was named, or the training engine lacks a setting.
    """
    if chosen is None:
        raise ConfigError(say("there is no run to write: nothing fits within what you set"))
    if data is None:
        raise ConfigError(say("a run file needs the data: give --data FILE instead of --samples"))
    values = run_values(chosen.row, wish, data)
    try:
        run_config(values)
    except ConfigError as error:
        raise ConfigError(
            say("this version of the training engine cannot carry out {method} as planned: {reason}", method=chosen.row.method, reason=error)
        ) from error  # fmt: skip
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def run_values(row: PlanRow, wish: Wish, data: str) -> dict[str, Any]:
    """A row's settings under the keys of a run file; what has no key there yet is named as it will be called."""
    setup = row.setup
    settings = {key: value for key, value in to_values(setup.method).items() if value not in (None, {}, ())}
    values: dict[str, Any] = {
        "model": wish.model.reference,
        "data": {"train": data},
        "task": {"kind": "generate" if wish.generate else "classify", "max_length": max(8, setup.tokens)},
        "method": {
            "kind": setup.method.kind,
            **{key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()},
        },
        "training": {
            "epochs": wish.workload.epochs,
            "batch_size": setup.micro_batch,
            "accumulation": setup.accumulation,
        },
        "dtype": setup.dtype,
    }
    if setup.four_bit:
        values["quantize"] = "nf4"
    if setup.checkpointing:
        values["training"]["checkpointing"] = True
    return values
