"""`tunedeck race`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import options, run_options
from tunedeck.cli.compare import WITHOUT as NOT_COMPARED
from tunedeck.cli.compare import command_line, exit_code_of_a_signal
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.comparison.race.result import Race

limit = partial(typer.Option, rich_help_panel=say("Budget of the race"))
what = partial(typer.Option, rich_help_panel=say("What is compared"))
WITHOUT = (*(key for key in NOT_COMPARED if key != "data.train_size"), "training.max_minutes")
"""Keys of a run file without a flag: each candidate has its own, and the race has a limit."""


def race(
    run_file: run_options.RunFile = None,
    candidates: Annotated[
        str | None,
        what(
            help=say(
                "candidates with semicolons, settings after colons: lora:r=4,16:learning_rate=1e-3,3e-3;bottleneck is "
                "four LoRAs and a bottleneck adapter"
            ),
            show_default=say("a portfolio of settings that have done well"),
        ),
    ] = None,
    bases: Annotated[
        str | None, what(help=say("base models with commas; the one whose frozen vectors suit the data best is taken"))
    ] = None,
    seeds: Annotated[
        str | None, what(help=say("seeds of each candidate's first weights: how many (3) or which (0,7,13)"))
    ] = None,
    until: Annotated[
        str,
        limit(
            help=say(
                "stable: until the ranking no longer changes; clear: until all others are significantly worse, or the "
                "smallest of those that are not is ahead"
            )
        ),
    ] = "stable",
    minutes: Annotated[float | None, limit(help=say("race for at most this number of minutes"))] = None,
    budget: Annotated[float | None, limit(help=say("race for at most this amount of money"))] = None,
    price_per_hour: Annotated[
        float | None, limit(help=say("price of an hour of this machine (default: the GPU's listed price)"))
    ] = None,
    currency: Annotated[str, limit(help=say("CNY, USD, ..."))] = "CNY",
    out: Annotated[
        Path | None,
        typer.Option(help=say("folder of the race; race/NAME after the run file or the data by default")),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=say("throw away an earlier race in that folder"))
    ] = False,
    ray: options.Ray = None,
    settings: run_options.Assignments = None,
    as_json: options.AsJson = False,
    *,
    flags: Mapping[str, Any],
) -> None:
    """Let candidates race on your data, stop the worse ones early, and train the winner."""
    from tunedeck.comparison.compare import default_folder
    from tunedeck.comparison.race.race import race as race_candidates

    first_base = {"model": bases.split(",")[0].strip()} if bases and "model" not in flags else {}
    values = run_options.run_values(run_file, {**first_base, **flags}, settings or [])
    with exit_code_of_a_signal():
        found = race_candidates(
            values,
            candidates=candidates,
            bases=bases,
            seeds=seeds,
            until=until,  # type: ignore[arg-type]
            minutes=minutes,
            budget=budget,
            price_per_hour=price_per_hour,
            currency=currency,
            out=out or values.get("out") or (run_file and default_folder(run_file, "race")),
            overwrite=overwrite,
            ray=ray,
            command=command_line(),
        )
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)


def _show(race: Race) -> None:
    """Print the candidates, the verdict, and where the report and the adapter are."""
    from tunedeck.comparison.race.words import columns, left_out, rows

    print_table(say("{model} on {data}", model=race.model, data=race.data.source), columns(race), rows(race))
    for line in [*left_out(race), race.text]:
        tell(line)
    tell(say("the winner is in {path}", path=race.adapter_folder))
    tell(say("the report is in {path}", path=Path(race.folder) / "report.html"))
