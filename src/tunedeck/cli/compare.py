"""`tunedeck compare`."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import run_flags
from tunedeck.cli.console import print_json, print_tables, tell
from tunedeck.core.messages import say

if TYPE_CHECKING:
    from tunedeck.comparison.compare import Order
    from tunedeck.comparison.report.result import Comparison
    from tunedeck.deck.deck import Deck

BUDGET, WHAT = say("Budget of each run"), say("What is compared")
METHODS = "lora,bottleneck,prompt-tuning,full,head"


def compare(
    context: typer.Context,
    run_file: run_flags.RunFile = None,
    methods: Annotated[str, typer.Option(help=say("methods with commas, settings after colons: lora:r=4,16:lora_alpha=32,full is two LoRAs and full; names joined by + are one value, as target_modules=query+value; learning_rate and other keys of training count too"), rich_help_panel=WHAT)] = METHODS,
    seeds: Annotated[str | None, typer.Option(help=say("how many (3) or which (0,7,13); one by default"), rich_help_panel=WHAT)] = None,
    search: Annotated[int, typer.Option(help=say("first try so many learning rates and sizes for each method, losers stopped early"), min=0, rich_help_panel=WHAT)] = 0,
    examples: Annotated[int | None, typer.Option(help=say("train on so many examples only"), rich_help_panel=BUDGET)] = None,
    minutes: Annotated[float | None, typer.Option(help=say("train for so many minutes"), rich_help_panel=BUDGET)] = None,
    budget: Annotated[float | None, typer.Option(help=say("train for so much money"), rich_help_panel=BUDGET)] = None,
    price_per_hour: Annotated[float | None, typer.Option(help=say("what an hour of this machine costs; a card's listed price by default"), rich_help_panel=BUDGET)] = None,
    currency: Annotated[str, typer.Option(help=say("CNY, USD, ..."), rich_help_panel=BUDGET)] = "CNY",
    model: run_flags.Model = None,
    data: run_flags.DataFile = None,
    eval_data: run_flags.EvalData = None,
    eval_fraction: run_flags.EvalFraction = None,
    text: run_flags.Text = None,
    label: run_flags.Label = None,
    anchor: run_flags.Anchor = None,
    positive: run_flags.Positive = None,
    negative: run_flags.Negative = None,
    score: run_flags.Score = None,
    encoding: run_flags.Encoding = None,
    drop_empty: run_flags.DropEmpty = None,
    eval_size: run_flags.EvalSize = None,
    task: run_flags.Task = None,
    multi_label: run_flags.MultiLabel = None,
    max_length: run_flags.MaxLength = None,
    epochs: run_flags.Epochs = None,
    max_steps: run_flags.MaxSteps = None,
    batch_size: run_flags.BatchSize = None,
    patience: run_flags.Patience = None,
    dtype: run_flags.DtypeName = None,
    quantize: run_flags.Quantize = None,
    device: run_flags.Device = None,
    trust_remote_code: run_flags.TrustRemoteCode = None,
    out: Annotated[Path | None, typer.Option(help=say("folder of the comparison; compare/NAME after the run file or the data by default"))] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=say("throw away an earlier comparison in that folder"))] = False,
    settings: run_flags.Assignments = None,
    as_json: run_flags.AsJson = False,
) -> None:  # fmt: skip
    """Train several methods on the same data with the same budget, and report which to take and why."""
    from tunedeck.cli.plan import check_sizes
    from tunedeck.comparison import budget as budgets
    from tunedeck.comparison import compare as order
    from tunedeck.comparison.grammar import parse_methods
    from tunedeck.training.config import run_config

    values = run_flags.run_values(run_file, context.params, settings or [])
    check_sizes({"--examples": examples, "--minutes": minutes, "--budget": budget, "--price-per-hour": price_per_hour})
    checked = run_config(values)
    candidates = parse_methods(_possible(methods, checked.task), values)
    price = budgets.price_of(price_per_hour, currency.upper())
    values, in_words = budgets.with_budget(values, examples, minutes, budget, price)
    home = out or Path(checked.out or Path("compare") / (run_file.stem if run_file else _plain(checked.data.train)))
    if overwrite:
        order.clear(home)
    asked = order.Order(
        values=values, candidates=tuple(candidates), seeds=budgets.seeds_of(seeds, checked.training.seed), home=home,
        budget=in_words, price=price, command="tunedeck " + shlex.join(sys.argv[1:]), trials=search,
    )  # fmt: skip
    comparison, _ = carry_out(asked)
    result = written(comparison, home, {})
    if as_json:
        print_json(result)
    else:
        show(comparison, home)


def carry_out(asked: Order) -> tuple[Comparison, Deck]:
    """The comparison and its deck; says how to go on when it is interrupted."""
    from tunedeck.comparison.compare import compare

    try:
        return compare(asked)
    except (KeyboardInterrupt, typer.Exit):
        tell(
            say(
                "the runs stay in {path}, the one under way with its last checkpoint; the same command goes on from there",
                path=asked.home,
            )
        )
        raise


def written(comparison: Comparison, home: Path, more: dict[str, Any]) -> dict[str, Any]:
    """Write report.html, report.md, figures/ and comparison.json with `more` in it; gives what the last one holds."""
    from tunedeck.comparison.report.page import write_report
    from tunedeck.comparison.report.recommend import recommend
    from tunedeck.core.storage import write_json

    write_report(home, comparison)
    result = {**comparison.to_json(), "recommendation": asdict(recommend(comparison)), **more}
    write_json(home / "comparison.json", result)
    return result


def show(comparison: Comparison, home: Path) -> None:
    """The tables, one below the other where the terminal is narrow, the recommendation, and where the report is."""
    from tunedeck.cli.plan_output import is_wide
    from tunedeck.comparison.report.recommend import recommend
    from tunedeck.comparison.report.table import blocks
    from tunedeck.comparison.report.text import title

    for entries, groups in blocks(comparison):
        every = [row for group in groups for row in group.rows]
        rows = [[row.label, *row.cells] for row in every if is_wide() or not row.label.startswith("  ")]
        print_tables(title(comparison), ["", *(entry.name for entry in entries)], rows)
    found = recommend(comparison)
    tell(found.text)
    if found.warning:
        tell(found.warning)
    tell(say("the report is in {path}", path=home / "report.html"))


def _possible(methods: str, task: dict[str, Any]) -> str:
    """The methods asked for; of the default ones those that the task has: only classification has a head."""
    return (
        methods if methods != METHODS or task.get("kind", "classify") == "classify" else METHODS.removesuffix(",head")
    )


def _plain(reference: str) -> str:
    """A folder name after a data reference: `tweets` for `bundled:tweets`, `reviews` for `data/reviews.csv`."""
    return re.sub(r"[^\w.-]+", "-", Path(reference.rpartition(":")[2]).stem) or "comparison"
