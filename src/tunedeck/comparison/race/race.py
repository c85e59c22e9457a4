"""`td.race`: candidates race on the same data, and the winner is trained to its end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunedeck.comparison.compare import as_call, default_folder, name_source, values_of_run
from tunedeck.comparison.race.contest import Until
from tunedeck.comparison.race.log import FILE
from tunedeck.comparison.race.portfolio import Candidates
from tunedeck.comparison.race.result import Race
from tunedeck.comparison.race.spec import race_spec
from tunedeck.comparison.race.standing import FILE as STANDING
from tunedeck.core import console
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_json
from tunedeck.training.left_out import with_left_out

RESULT = "race.json"


def race(
    run: str | Path | Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    data: str | Mapping[str, Any] | None = None,
    task: str | Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    candidates: Candidates | None = None,
    bases: str | Sequence[str] | None = None,
    seeds: int | str | Sequence[int] | None = None,
    until: Until = "stable",
    minutes: float | None = None,
    budget: float | None = None,
    price_per_hour: float | None = None,
    currency: str = "CNY",
    out: str | Path | None = None,
    overwrite: bool = False,
    ray: str | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Race:
    """Find a good setting among many for a part of what training them all takes, and train it.

    `run` is a run file, a data file or a run's values; `model`, `data`, `task` and `training` override its keys, as in
    `td.compare`. `candidates` is text such as "lora:r=4,16:learning_rate=1e-3,3e-3;bottleneck", or a list of such texts
    and of configs; by default a portfolio of settings that have done well. The first in their order is preferred of
    those within one standard error of the best. `bases` are base models, of which the one is taken on whose frozen
    vectors a head does best. `seeds` is a number of seeds for each candidate's first weights, or the seeds.

    All candidates train over the same examples in the same order, to 1/27, 1/9, 1/3 and all of a run, and answer the
    same held-out examples: those that are significantly worse by a sequential test stop, and at most a quarter
    continues. With `until` "clear", all go on that are not significantly worse. The race takes at most `minutes`, or
    `budget`, an amount of money at `price_per_hour`. The winner is trained to its end and measured on examples that the
    race has not touched: the evaluation data of the run.

    `out`, by default race/NAME after the run file or the data, holds race.json, report.html, figures/, the winner in
    adapter/ and all candidates with their checkpoints. If called again, a race is resumed where it was broken off; with
    more candidates, more time or another `until` it goes further. `overwrite` starts anew.

    `ray` is the address of a Ray cluster, "auto", or "local" for this machine: its workers train the candidates, as
    many at a time as it has processors or GPUs. The folder and the data are on storage that all machines share.

    Raises ConfigError for settings that do not fit and where `out` holds another race, DataError for data that is not
    usable, TrainingError when no candidate can be trained, and KeyboardInterrupt (comparison.runs.Interrupted, which
    names the signal) after Ctrl-C or SIGTERM.
    """
    from tunedeck.comparison.race.run import run_race  # loads torch

    call = command or as_call(race, locals())
    named = values_of_run(run, model, data, task, training)
    if bases and "model" not in named:
        named["model"] = bases.split(",")[0].strip() if isinstance(bases, str) else bases[0]
    values = with_left_out(named, console.tell if progress else lambda text: None)
    if any(values.get(key) for key in ("folds", "start_from", "replay", "refit_head")):
        raise ConfigError(say("a race has no folds, start_from, replay or refit_head; they are for tunedeck train"))
    folder = Path(out or values.get("out") or default_folder(name_source(run, values), "race"))
    spec = race_spec(
        {**values, "out": None},
        folder=folder,
        command=call,
        candidates=candidates,
        bases=bases,
        seeds=seeds,
        until=until,
        limits=(minutes, budget),
        price_per_hour=price_per_hour,
        currency=currency,
        progress=progress,
        ray=ray,
    )
    if overwrite:
        clear(spec.folder)
    found = run_race(spec)
    found.report(spec.folder)
    write_json(spec.folder / RESULT, found.to_json())
    return found


def clear(folder: Path) -> None:
    """Delete what an earlier race left in the folder."""
    for name in ("candidates", "figures", "adapter"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (FILE, STANDING, RESULT, "report.html"):
        (folder / name).unlink(missing_ok=True)
