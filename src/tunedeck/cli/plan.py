"""`tunedeck plan`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, tell
from tunedeck.cli.run_options import names_or_pattern
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.planner.planning import Plan

work = partial(typer.Option, rich_help_panel=say("What is trained"))
how = partial(typer.Option, rich_help_panel=say("How"))


def plan(
    model: options.PlannedModel,
    data: Annotated[str | None, work(help=say("training data: file, hub id or bundled: name"))] = None,
    samples: Annotated[int | None, work(help=say("instead of --data: the number of examples"))] = None,
    tokens: Annotated[int | None, work(help=say("tokens of every example; with --data, where texts are cut"))] = None,
    epochs: Annotated[float | None, work(help=say("passes over the data (default: as many as tunedeck train)"))] = None,
    task: Annotated[
        str | None, work(help=say("classify, tag, score or generate; by default what the model is for"))
    ] = None,
    method: Annotated[str | None, how(help=say("methods with commas, such as lora,qlora; all by default"))] = None,
    r: Annotated[int | None, how("--r", help=say("LoRA rank"))] = None,
    target_modules: Annotated[
        str | None, how(help=say("names with commas, a regular expression, or all-linear"))
    ] = None,
    num_virtual_tokens: Annotated[int | None, how(help=say("prompt tuning length"), hidden=True)] = None,
    reduction_factor: Annotated[
        float | None, how(help=say("bottleneck width: hidden size / this"), hidden=True)
    ] = None,
    micro_batch: Annotated[int | None, how(help=say("examples at once; by default what fits"))] = None,
    gradient_accumulation_steps: Annotated[
        int | None, how(help=say("micro-batches per update; by default up to 32 examples"), hidden=True)
    ] = None,
    gradient_checkpointing: Annotated[
        bool,
        how(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help=say("recompute activations: less memory, more time"),
            hidden=True,
        ),
    ] = False,
    loss: Annotated[
        str | None, how(help=say("eager, fused, chunked; by default as this engine computes it"), hidden=True)
    ] = None,
    attention: Annotated[str | None, how(help="flash, sdpa, eager", hidden=True)] = None,
    dtype: Annotated[str | None, how(help="bf16, fp16, fp32")] = None,
    gpu: Annotated[str | None, options.where(help=say("GPUs, separated by commas, or this-machine"))] = None,
    budget: Annotated[float | None, options.where(help=say("at most this amount of money"))] = None,
    deadline: Annotated[str | None, options.where(help=say("time limit: 90m, 6h, 2d"))] = None,
    currency: options.Currency = "CNY",
    price_list: options.PriceList = "market",
    prices: options.PriceFile = None,
    exchange_rate: options.ExchangeRates = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help=say("measure this machine with real steps, keep the result, plan with it")),
    ] = False,
    write: Annotated[
        Path | None, typer.Option(help=say("write the run file that carries out the recommendation"))
    ] = None,
    everything: options.AllRows = False,
    as_json: options.AsJson = False,
) -> None:
    """Estimate memory, time and cost of every method on every GPU before you rent one."""
    import tunedeck as td
    from tunedeck.cli.plan_output import show

    settings = {
        "r": r,
        "target_modules": None if target_modules is None else names_or_pattern(target_modules),
        "num_virtual_tokens": num_virtual_tokens,
        "reduction_factor": reduction_factor,
    }
    found = td.plan(
        model,
        data,
        samples=samples,
        tokens=tokens,
        epochs=epochs,
        task=task,  # type: ignore[arg-type]
        methods=method,
        settings={key: value for key, value in settings.items() if value is not None},
        micro_batch=micro_batch,
        gradient_accumulation_steps=gradient_accumulation_steps,
        gradient_checkpointing=gradient_checkpointing,
        loss=loss,  # type: ignore[arg-type]
        attention=attention,  # type: ignore[arg-type]
        dtype=dtype,
        gpus=gpu,
        budget=budget,
        deadline=deadline,
        currency=currency,
        price_list=price_list,
        prices=prices,
        exchange_rates=exchange_rate or (),
        calibrate=calibrate,
    )
    print_json(found.to_json()) if as_json else show(found, everything)
    if write is not None:
        _write_run_file(write, found)


def _write_run_file(path: Path, found: Plan) -> None:
    """Write the run file of a plan's recommendation, checked as `tunedeck train` will check it."""
    import yaml

    from tunedeck.core.storage import write_text
    from tunedeck.training.config import run_config

    values = found.run_values()
    run_config(values)
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    tell(say("{path} is written; start it with: tunedeck train {path}", path=path))
