"""Several LoRA adapters of one base combined into one, from their folders alone: no weight of the base is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError, StorageError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import replacing_folder
from tunedeck.export.folders import name_of, write_verified
from tunedeck.export.standalone import open_adapter
from tunedeck.formats.combine import COMBINATIONS, Combination, combined


def combine_adapters(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    how: Combination = "cat",
    density: float = 0.5,
    seed: int = 0,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Combine LoRA adapters of one base into a new adapter folder `out`, and return it.

    Each adapter's update of the weights counts by its weight; by default all count alike and the weights add up to 1.
    `how` is `cat` (the exact sum, whose rank is the sum of the ranks), `svd` (its best approximation at the largest of
    the ranks), or `linear`, `ties`, `dare_linear`, `dare_ties`, which combine A with A and B with B as PEFT does and
    need equal ranks. `density` is the share of values that the last three keep; DARE draws them with `seed`. Heads need
    the same labels and are averaged. The result has no metrics: evaluate it. `model` is the base where the folders name
    none.

    Raises ConfigError for weights, ways and densities out of range, UnsupportedKindError for other kinds than LoRA,
    AdapterError for adapters that do not belong together, StorageError where `out` exists.
    """
    target = Path(out).expanduser()
    if target.exists():
        raise StorageError(say("{path} already exists; choose another path", path=target))
    one_of("how", how, COMBINATIONS)
    if len(folders) < 2:
        raise ConfigError(say("give two or more adapter folders"))
    weights = [1 / len(folders)] * len(folders) if weights is None else weights
    if len(weights) != len(folders) or not any(weights):
        raise ConfigError(
            say(
                "give {count} weights, one for each adapter and not all zero; got {weights}",
                count=len(folders),
                weights=listing(weights),
            )
        )
    if not 0 < density <= 1:
        raise ConfigError(
            say("{name} must be above 0 and at most {largest:g}, got {value}", name="density", largest=1, value=density)
        )
    opened = [open_adapter(Path(one).expanduser(), model, trust_remote_code=trust_remote_code) for one in folders]
    stored = combined([one.stored for one in opened], weights, how, density, seed)
    with replacing_folder(target) as staging:
        write_verified(dataclasses.replace(opened[0], stored=stored), staging, stored.config.stored_as, name_of(target))
    return target
