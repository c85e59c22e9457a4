"""`tunedeck compare`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import options, run_options
from tunedeck.cli.console import print_json, print_tables, tell
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.comparison.result import Comparison

limit = partial(typer.Option, rich_help_panel=say("Budget of each run"))
what = partial(typer.Option, rich_help_panel=say("What is compared"))
WITHOUT = (
    "method",
    "training.learning_rate",
    "training.seed",
    "data.train_size",
    "name",
    "folds",
    "start_from",
    "replay",
    "refit_head",
)
"""Keys of a run file without a flag: each entry, seed and budget of the comparison has its own."""


def _default_methods() -> str:
    """Return the default shown in the help; generation and embeddings have no head that can be trained on its own."""
    from tunedeck.comparison.spec import METHODS_WITH_HEAD

    return METHODS_WITH_HEAD


def compare(
    run_file: run_options.RunFile = None,
    methods: Annotated[
        str | None,
        what(
            help=say(
                "methods with commas, settings after colons: lora:r=4,16:lora_alpha=32,full is two LoRAs and full; "
                "names joined by + are one value, as target_modules=query+value; learning_rate and other keys of "
                "training count too"
            ),
            show_default=_default_methods(),
        ),
    ] = None,
    seeds: Annotated[str | None, what(help=say("how many (3) or which (0,7,13); one by default"))] = None,
    search: Annotated[
        int,
        what(
            help=say("first try this number of learning rates and sizes for each method; poor ones are stopped early"),
            min=0,
        ),
    ] = 0,
    examples: Annotated[int | None, limit(help=say("train on at most this number of examples"))] = None,
    minutes: Annotated[float | None, limit(help=say("train for at most this number of minutes"))] = None,
    budget: Annotated[float | None, limit(help=say("train for at most this amount of money"))] = None,
    price_per_hour: Annotated[
        float | None, limit(help=say("price of an hour of this machine (default: the GPU's listed price)"))
    ] = None,
    currency: Annotated[str, limit(help=say("CNY, USD, ..."))] = "CNY",
    out: Annotated[
        Path | None,
        typer.Option(help=say("folder of the comparison; compare/NAME after the run file or the data by default")),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=say("throw away an earlier comparison in that folder"))
    ] = False,
    ray: options.Ray = None,
    settings: run_options.Assignments = None,
    as_json: options.AsJson = False,
    *,
    flags: Mapping[str, Any],
) -> None:
    """Train several methods on the same data with the same budget, and report which to take and why."""
    from tunedeck.comparison.compare import compare as compare_methods
    from tunedeck.comparison.compare import default_folder

    values = run_options.run_values(run_file, flags, settings or [])
    with exit_code_of_a_signal():
        comparison = compare_methods(
            values,
            methods=methods,
            seeds=seeds,
            search=search,
            examples=examples,
            minutes=minutes,
            budget=budget,
            price_per_hour=price_per_hour,
            currency=currency,
            out=out or values.get("out") or (run_file and default_folder(run_file)),
            overwrite=overwrite,
            ray=ray,
            command=command_line(),
        )
    if as_json:
        print_json(comparison.to_json())
    else:
        show(comparison)


def command_line() -> str:
    """Return this command as a shell takes it."""
    return "tunedeck " + shlex.join(sys.argv[1:])


@contextmanager
def exit_code_of_a_signal() -> Iterator[None]:
    """Exit with 130 or 143 if Ctrl-C or SIGTERM stopped a run inside the block."""
    from tunedeck.comparison.runs import Interrupted

    try:
        yield
    except Interrupted as stop:
        raise typer.Exit(128 + stop.signal) from None


def show(comparison: Comparison) -> None:
    """Print the tables, one below the other if the terminal is narrow, the recommendation and the report's path."""
    from tunedeck.cli.plan_output import is_wide
    from tunedeck.comparison.report.table import blocks
    from tunedeck.comparison.report.text import title

    for entries, groups in blocks(comparison):
        every = [row for group in groups for row in group.rows]
        rows = [[row.label, *row.cells] for row in every if is_wide() or not row.label.startswith("  ")]
        print_tables(title(comparison), ["", *(entry.name for entry in entries)], rows)
    found = comparison.recommendation
    tell(found.text)
    if found.warning:
        tell(found.warning)
    tell(say("the report is in {path}", path=Path(comparison.folder) / "report.html"))
