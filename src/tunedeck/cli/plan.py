"""`tunedeck plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli.console import print_json, tell
from tunedeck.core.checks import one_of as choice
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say

if TYPE_CHECKING:
    from tunedeck.methods.base import MethodConfig
    from tunedeck.planner.models import PlannedModel
    from tunedeck.planner.plan import Wish
    from tunedeck.planner.prices import Offer, PriceBook
    from tunedeck.planner.workload import Workload

WORK, HOW, WHERE = say("What is trained"), say("How"), say("Where and for how much")
TEXT_COLUMNS = ("text", "messages", "content", "sentence", "review")
METHODS = ("lora", "qlora", "bottleneck", "prompt_tuning", "full")
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def plan(
    model: Annotated[str, typer.Option(help=say("a name such as qwen-7b, a hub id, a bundled: name, or the folder of a config.json"))],
    data: Annotated[str | None, typer.Option(help=say("training data: file, hub id or bundled: name"), rich_help_panel=WORK)] = None,
    samples: Annotated[int | None, typer.Option(help=say("instead of --data: so many examples"), rich_help_panel=WORK)] = None,
    tokens: Annotated[int | None, typer.Option(help=say("tokens of every example; with --data, where texts are cut"), rich_help_panel=WORK)] = None,
    epochs: Annotated[float, typer.Option(help=say("passes over the data"), rich_help_panel=WORK)] = 3,
    task: Annotated[str | None, typer.Option(help=say("classify or generate; by default what the model is for"), rich_help_panel=WORK)] = None,
    method: Annotated[str | None, typer.Option(help=say("some of {known}, with commas", known=", ".join(METHODS)), rich_help_panel=HOW)] = None,
    r: Annotated[int | None, typer.Option("--r", help=say("LoRA rank"), rich_help_panel=HOW)] = None,
    target_modules: Annotated[str | None, typer.Option(help=say("names with commas, a regular expression, or all-linear"), rich_help_panel=HOW)] = None,
    num_virtual_tokens: Annotated[int | None, typer.Option(help=say("prompt tuning length"), rich_help_panel=HOW)] = None,
    reduction_factor: Annotated[float | None, typer.Option(help=say("bottleneck width: hidden size / this"), rich_help_panel=HOW)] = None,
    micro_batch: Annotated[int | None, typer.Option(help=say("examples at once; by default what fits"), rich_help_panel=HOW)] = None,
    accumulation: Annotated[int | None, typer.Option(help=say("micro-batches per update; by default up to 32 examples"), rich_help_panel=HOW)] = None,
    checkpointing: Annotated[bool, typer.Option("--checkpointing/--no-checkpointing", help=say("recompute activations: less memory, more time"), rich_help_panel=HOW)] = False,
    loss: Annotated[str | None, typer.Option(help=say("eager, fused, chunked; by default as this engine computes it"), rich_help_panel=HOW)] = None,
    attention: Annotated[str | None, typer.Option(help="flash, sdpa, eager", rich_help_panel=HOW)] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16, fp32", rich_help_panel=HOW)] = None,
    gpu: Annotated[str | None, typer.Option(help=say("cards, with commas, or this-machine"), rich_help_panel=WHERE)] = None,
    budget: Annotated[float | None, typer.Option(help=say("at most so much money"), rich_help_panel=WHERE)] = None,
    deadline: Annotated[str | None, typer.Option(help=say("at most so long: 90m, 6h, 2d"), rich_help_panel=WHERE)] = None,
    currency: Annotated[str, typer.Option(help=say("CNY, USD, ..."), rich_help_panel=WHERE)] = "CNY",
    price_list: Annotated[str, typer.Option(help=say("market, market-floor or source-article"), rich_help_panel=WHERE)] = "market",
    prices: Annotated[Path | None, typer.Option(help=say("your own price file, over the list"), rich_help_panel=WHERE)] = None,
    exchange_rate: Annotated[list[str] | None, typer.Option("--exchange-rate", help=say("what a currency costs, as USD=7.1"), rich_help_panel=WHERE)] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help=say("measure this machine with real steps, keep the result, plan with it"))] = False,
    write: Annotated[Path | None, typer.Option(help=say("write the run file that carries out the recommendation"))] = None,
    everything: Annotated[bool, typer.Option("--all", help=say("show every row"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:  # fmt: skip
    """Predict memory, time and money of every method on every card, before anything is rented."""
    from tunedeck.cli import plan_output
    from tunedeck.planner.advice import recommend
    from tunedeck.planner.models import find_planned_model
    from tunedeck.planner.plan import Wish, make_plan
    from tunedeck.planner.prices import read_prices, with_rates

    planned = find_planned_model(model)
    generate = _is_generation(task, planned)
    settings = {
        "r": r,
        "target_modules": target_modules,
        "num_virtual_tokens": num_virtual_tokens,
        "reduction_factor": reduction_factor,
    }
    methods = _methods(method, settings)
    check_sizes(
        {
            "--micro-batch": micro_batch,
            "--accumulation": accumulation,
            "--samples": samples,
            "--tokens": tokens,
            "--budget": budget,
        }
    )
    wish = Wish(
        model=planned, methods=methods, workload=_workload(planned, data, samples, tokens, epochs), generate=generate,
        micro_batch=micro_batch, accumulation=accumulation, checkpointing=checkpointing,
        loss=None if loss is None else choice("--loss", loss, ("eager", "fused", "chunked")),  # type: ignore[arg-type]
        attention=None if attention is None else choice("--attention", attention, ("flash", "sdpa", "eager")),  # type: ignore[arg-type]
        dtype=_dtype(dtype), budget=budget, deadline_h=_hours(deadline),
    )  # fmt: skip
    book = with_rates(read_prices(price_list, prices), exchange_rate or [], currency.upper())
    wish, own = _with_this_machine(wish, gpu, calibrate)
    offers = [*own, *chosen_offers(book, gpu, currency.upper(), with_cpus=False)]
    rows = make_plan(wish, offers)
    chosen = recommend(rows)
    if as_json:
        print_json(plan_output.to_json(wish, rows, chosen, offers))
    else:
        plan_output.show(wish, rows, chosen, offers, book, everything)
    if write is not None:
        from tunedeck.cli.run_file import write_run_file

        write_run_file(write, chosen, wish, data)
        tell(say("{path} is written; start it with: tunedeck train {path}", path=write))


def _methods(names: str | None, settings: dict[str, Any]) -> dict[str, MethodConfig]:
    """The methods to plan, by the name shown; a setting goes to those that have it."""
    from tunedeck.methods.registry import config_of

    wanted = [name.strip().replace("-", "_") for name in names.split(",")] if names else list(METHODS)
    given = {key: value for key, value in settings.items() if value is not None}
    if "target_modules" in given:
        given["target_modules"] = _targets(given["target_modules"])
    keys = {"lora": ("r", "target_modules"), "qlora": ("r", "target_modules"), "prompt_tuning": ("num_virtual_tokens",),
            "bottleneck": ("reduction_factor",), "full": ()}  # fmt: skip
    for name in wanted:
        if name not in METHODS:
            raise ConfigError(
                say("the planner does not know the method {name!r}", name=name)
                + nearest(name, METHODS)
                + say("; known: {known}", known=listing(METHODS))
            )
    kinds = {"qlora": "lora"}
    return {
        name: config_of(kinds.get(name, name), {key: given[key] for key in keys[name] if key in given})
        for name in wanted
    }


def _targets(text: str) -> str | list[str]:
    """`q_proj,v_proj` is a list of names; all-linear, or anything with a character no name has, is one string."""
    if text == "all-linear" or any(character in text for character in "*\\()[]|+^$?"):
        return text
    return [name.strip() for name in text.split(",")]


def _workload(
    model: PlannedModel, data: str | None, samples: int | None, tokens: int | None, epochs: float
) -> Workload:
    from tunedeck.planner.workload import Workload, workload_of_texts

    if (data is None) == (samples is None):
        raise ConfigError(say("give either --data FILE, or --samples N with --tokens N"))
    if data is not None:
        return workload_of_texts(_texts(data), data, model, epochs, tokens)
    assert samples is not None
    length = tokens or 512
    if model.max_tokens is not None and length > model.max_tokens:
        raise ConfigError(
            say(
                "{model} takes at most {limit} tokens, got --tokens {value}",
                model=model.name,
                limit=model.max_tokens,
                value=length,
            )
        )
    return Workload(samples, epochs, float(length), length, 0.1, "--samples", counted=True)


def _texts(reference: str) -> list[str]:
    """The texts of a data file, repeats left out as training leaves them out: a text column, a chat's messages, or every
    text of a row, as in instruction, input and output.
    """
    from tunedeck.data.split import normalised
    from tunedeck.data.table import read_table

    table = read_table(reference)
    column = next((name for name in TEXT_COLUMNS if name in table.columns), None)
    found = (_joined(row[column] if column else list(row.values())) for row in table.rows)
    return list({normalised(text): text for text in found}.values())


def _joined(value: object) -> str:
    """A text; the contents of messages; or all texts of a list."""
    if isinstance(value, dict):
        value = value.get("content", "")
    if isinstance(value, list):
        return " ".join(filter(None, map(_joined, value)))
    return value if isinstance(value, str) else ""


def _is_generation(task: str | None, model: PlannedModel) -> bool:
    chosen = model.spec.causal if task is None else choice("--task", task, ("classify", "generate")) == "generate"
    if chosen and not model.spec.causal:
        raise ConfigError(say("{model} is an encoder and cannot generate; use --task classify", model=model.name))
    return chosen


def _with_this_machine(wish: Wish, gpus: str | None, measured: bool) -> tuple[Wish, list[Offer]]:
    """The wish with what was measured here, and this machine as an offer that costs nothing, where it was asked for."""
    from dataclasses import replace

    from tunedeck.core.measurement import this_machine
    from tunedeck.planner.estimate import Estimate
    from tunedeck.planner.machine import THIS_MACHINE, machine_card, read_profile
    from tunedeck.planner.prices import Offer

    if not measured and THIS_MACHINE not in (gpus or ""):
        return wish, []
    machine = this_machine()
    if measured:
        from tunedeck.cli.calibrate import calibrate
        from tunedeck.planner.memory import method_facts
        from tunedeck.planner.plan import setup_for

        for name, method in wish.methods.items():
            if name != "qlora" or len(wish.methods) == 1:
                facts = method_facts(wish.model.spec, method)
                calibrate(machine, wish.model, setup_for(wish, name, method, facts, machine_card(machine, None)))
    profile = read_profile(machine)
    free, date = Estimate.exactly(0.0), profile.measured_at[:10] if profile else ""
    offer = Offer(machine_card(machine, profile), free, free, "CNY", "own", date, machine.cpu, "own")
    methods = (
        {name: method for name, method in wish.methods.items() if name != "qlora"}
        if gpus == THIS_MACHINE
        else wish.methods
    )
    return replace(wish, profile=profile, methods=methods or wish.methods), [offer]


def chosen_offers(book: PriceBook, gpus: str | None, currency: str, with_cpus: bool) -> list[Offer]:
    """The offers of the cards asked for, or of every card in the list."""
    from tunedeck.planner.catalogue import find_gpu
    from tunedeck.planner.machine import THIS_MACHINE

    if not gpus:
        return [book.convert(offer, currency) for offer in book.offers if with_cpus or offer.gpu.capability > 0]
    names = [name.strip() for name in gpus.split(",") if name.strip() and name.strip() != THIS_MACHINE]
    return [book.convert(offer, currency) for name in names for offer in book.offers_of(find_gpu(name))]


def check_sizes(values: dict[str, float | None]) -> None:
    """Raise ConfigError for a number that is not above 0, or absurd."""
    for name, value in values.items():
        if value is not None and not 0 < value < 1e12:
            raise ConfigError(say("{name} must be above 0, got {value}", name=name, value=value))


def _dtype(value: str | None) -> str | None:
    if value is None:
        return None
    return DTYPES.get(value) or choice("--dtype", value, (*DTYPES.values(), *DTYPES))


def _hours(text: str | None) -> float | None:
    """`90m`, `6h`, `2d`, or hours as a plain number."""
    if text is None:
        return None
    unit = {"m": 1 / 60, "h": 1.0, "d": 24.0}.get(text[-1:])
    try:
        hours = float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        hours = -1.0
    if not 0 < hours < 1e6:
        raise ConfigError(say("--deadline takes a time such as 90m, 6h or 2d, got {value!r}", value=text))
    return hours
