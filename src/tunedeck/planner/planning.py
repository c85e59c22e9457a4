"""`td.plan`: from a model, data and what a user asks for to a plan with a recommendation."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, final, get_args

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.measurement import this_machine
from tunedeck.core.values import field_names, to_values
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import BROKEN, METHODS, config_of
from tunedeck.planner.advice import Change, PlanAdvice, changes, reason_text, recommend
from tunedeck.planner.calibration import calibrate as calibrate_machine
from tunedeck.planner.catalogue import all_gpus
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.machine import THIS_MACHINE, machine_card, read_profile
from tunedeck.planner.memory import Attention, Loss, method_facts
from tunedeck.planner.models import PlannedModel, find_planned_model
from tunedeck.planner.plan import PlanRequest, PlanRow, make_plan, setup_for
from tunedeck.planner.prices import Offer, PriceBook, check_sizes, chosen_offers, gpu_names, read_prices, with_rates
from tunedeck.planner.workload import Workload, planned_epochs, workload_of_data

PlannedTask = Literal["classify", "tag", "score", "generate"]
PLANNED: Mapping[str, str] = {
    name: kind for kind, method in METHODS.items() for name in (kind, method.quantized_name) if name is not None
}
"""The methods that a plan compares by the name shown, and their kinds: LoRA on a 4-bit base is qlora."""
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """Every method on every GPU, the recommended row first among them, and what the rows were computed from."""

    request: PlanRequest
    rows: tuple[PlanRow, ...]
    """Sorted rows: first those that fit and stay within budget and deadline, then by cost."""
    recommendation: PlanAdvice | None
    """None where nothing fits within what was asked for."""
    offers: tuple[Offer, ...]
    prices: PriceBook
    data: str | None
    """The data the plan was made for; None where examples and tokens were given instead."""

    def changes(self) -> list[Change]:
        """Return changes that make the method closest to fitting fit on each GPU; empty if one fits already."""
        if any(row.fits for row in self.rows) or not self.rows:
            return []
        asked = {offer.gpu.name for offer in self.offers}
        others = [gpu for gpu in all_gpus().values() if gpu.name not in asked and gpu.capability > 0]
        found: list[Change] = []
        for name in dict.fromkeys(row.offer.gpu.name for row in self.rows):
            nearest_row = next(row for row in self.rows if row.offer.gpu.name == name)
            found += [change for change in changes(nearest_row, others) if change not in found]
        return found

    def run_values(self) -> dict[str, Any]:
        """Return the recommendation as the values of a run file, as `td.compare` and `tunedeck train` take them.

        Raises ConfigError when there is nothing to recommend or the plan was made without data.
        """
        if self.recommendation is None:
            raise ConfigError(say("there is no run to write: nothing fits within your limits"))
        if self.data is None:
            raise ConfigError(say("a run file needs the data: give --data FILE instead of --samples"))
        return run_values(self.recommendation.row, self.request, self.data)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; every estimate has low, expected and high."""
        today = datetime.date.today()
        chosen, work = self.recommendation, self.request.workload
        recommendation = None
        if chosen is not None:
            place = {"method": chosen.row.method, "gpu": chosen.row.offer.gpu.name, "row": self.rows.index(chosen.row)}
            recommendation = {**place, "reason": reason_text(chosen)}
        model = self.request.model
        return {
            "model": {"name": model.name, "parameters": model.parameters, "source": model.source},
            "workload": {name: getattr(work, name) for name in work.__slots__},
            "task": self.request.task,
            "rows": [{**row.to_json(), "price_is_stale": row.offer.is_stale(today)} for row in self.rows],
            "recommendation": recommendation,
            "changes": [{"gpu": c.gpu.name, "flags": c.flags} for c in self.changes()] if chosen is None else [],
        }


def plan(
    model: str,
    data: str | None = None,
    *,
    samples: int | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    task: PlannedTask | None = None,
    methods: str | Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    micro_batch: int | None = None,
    gradient_accumulation_steps: int | None = None,
    gradient_checkpointing: bool = False,
    loss: Loss | None = None,
    attention: Attention | None = None,
    dtype: str | None = None,
    gpus: str | Sequence[str] | None = None,
    budget: float | None = None,
    deadline: float | str | None = None,
    currency: str = "CNY",
    price_list: str = "market",
    prices: str | Path | None = None,
    exchange_rates: Sequence[str] = (),
    calibrate: bool = False,
) -> Plan:
    """Predict memory, time and cost of every method on every GPU before anything is rented; loads no torch and no
    weights.

    `model` is a name such as qwen-7b, a hub id, a `bundled:` name or the folder of a config.json. The work is `data` (a
    file, a hub id or a `bundled:` name) or `samples` examples of `tokens` tokens; with `data`, longer texts are cut at
    `tokens`. `epochs` are by default those of a training run, `task` what the model is for. `methods` are some of lora,
    qlora, bottleneck, ... (names or text with commas); `settings` of methods, as {"r": 16}, count for those that have
    them. Left at None, the batch, `loss` (eager, fused, chunked), `attention` (flash, sdpa, eager) and `dtype` are
    chosen for each GPU.

    `gpus` are names of the catalogue or "this-machine", by default all that the price list offers. `budget` is an
    amount of `currency`, `deadline` hours or text such as "90m", "6h", "2d". `prices` is a price file over
    `price_list`, `exchange_rates` such as "USD=7.1". `calibrate` first measures real steps on this machine and keeps
    the result.

    Raises ModelError for an unknown model, DataError for data that is not usable, TargetError for target modules that
    the model lacks, and ConfigError for anything else that does not fit.
    """
    planned = find_planned_model(model)
    chosen = _task(task, planned)
    batch = {"micro_batch": micro_batch, "gradient_accumulation_steps": gradient_accumulation_steps}
    check_sizes({**batch, "samples": samples, "tokens": tokens, "budget": budget})
    request = PlanRequest(
        model=planned,
        methods=_methods(methods, settings or {}),
        workload=_workload(planned, data, samples, tokens, epochs),
        task=chosen,
        micro_batch=micro_batch,
        accumulation=gradient_accumulation_steps,
        checkpointing=gradient_checkpointing,
        loss=None if loss is None else cast(Loss, one_of("loss", loss, get_args(Loss))),
        attention=None if attention is None else cast(Attention, one_of("attention", attention, get_args(Attention))),
        dtype=_dtype(dtype),
        budget=budget,
        deadline_h=_hours(deadline),
    )
    book = with_rates(
        read_prices(price_list, None if prices is None else Path(prices)), exchange_rates, currency.upper()
    )
    names = gpu_names(gpus)
    request, here = _with_this_machine(request, names, calibrate)
    rented = None if names is None else [name for name in names if name != THIS_MACHINE]
    offers = (*here, *chosen_offers(book, rented, currency.upper(), with_cpus=False))
    rows = tuple(make_plan(request, offers))
    return Plan(request, rows, recommend(rows), offers, book, data)


def run_values(row: PlanRow, request: PlanRequest, data: str) -> dict[str, Any]:
    """Return the settings of a row of the plan as the values of a run file."""
    setup = row.setup
    settings = {key: value for key, value in to_values(setup.method).items() if value not in (None, {}, ())}
    training: dict[str, Any] = {
        "epochs": round(request.workload.epochs, 2),
        "batch_size": setup.micro_batch,
        "gradient_accumulation_steps": setup.accumulation,
    }
    if setup.checkpointing:
        training["gradient_checkpointing"] = True
    values: dict[str, Any] = {
        "model": request.model.reference,
        "data": {"train": data},
        "task": {"kind": request.task, "max_length": max(8, setup.tokens)},
        "method": {
            "kind": setup.method.kind,
            **{key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()},
        },
        "training": training,
        "dtype": setup.dtype,
    }
    return {**values, "quantize": "nf4"} if setup.four_bit else values


def _methods(wanted: str | Sequence[str] | None, settings: Mapping[str, Any]) -> dict[str, MethodConfig]:
    """Return the methods to plan, by the name shown; a setting goes to those that have it."""
    listed = wanted.split(",") if isinstance(wanted, str) else wanted or PLANNED
    names = [name.strip().replace("-", "_") for name in listed]
    for name in names:
        if name in BROKEN:
            raise ConfigError(BROKEN[name])
        if name not in PLANNED:
            raise ConfigError(
                say("the planner does not know the method {name!r}", name=name)
                + nearest(name, PLANNED)
                + say("; known: {known}", known=listing(PLANNED))
            )
    found: dict[str, MethodConfig] = {}
    for name in names:
        known = field_names(METHODS[PLANNED[name]])
        found[name] = config_of(PLANNED[name], {key: value for key, value in settings.items() if key in known})
    return found


def _workload(
    model: PlannedModel, data: str | None, samples: int | None, tokens: int | None, epochs: float | None
) -> Workload:
    if (data is None) == (samples is None):
        raise ConfigError(say("give either --data FILE, or --samples N with --tokens N"))
    if data is not None:
        return workload_of_data(data, model, epochs, tokens)
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
    return Workload(samples, planned_epochs(epochs, samples), float(length), length, 0.1, "--samples", counted=True)


def _task(task: str | None, model: PlannedModel) -> str:
    if task is None:
        return "generate" if model.spec.causal else "classify"
    if one_of("task", task, get_args(PlannedTask)) == "generate" and not model.spec.causal:
        raise ConfigError(say("{model} is an encoder and cannot generate; use --task classify", model=model.name))
    return task


def _with_this_machine(
    request: PlanRequest, gpus: Sequence[str] | None, calibrate: bool
) -> tuple[PlanRequest, list[Offer]]:
    """Add what was measured here, and this machine as an offer that costs nothing, where it was asked for."""
    if not calibrate and THIS_MACHINE not in (gpus or ()):
        return request, []
    machine = this_machine()
    if calibrate:
        for name, method in request.methods.items():
            if name != method.quantized_name or len(request.methods) == 1:
                facts = method_facts(request.model.spec, method)
                card = machine_card(machine, None)
                calibrate_machine(machine, request.model, setup_for(request, name, method, facts, card))
    profile = read_profile(machine)
    free, date = Estimate.exactly(0.0), profile.measured_at[:10] if profile else ""
    offer = Offer(machine_card(machine, profile), free, free, "CNY", "own", date, machine.cpu, "own")
    methods = request.methods
    if gpus == [THIS_MACHINE]:  # 4-bit bases are not planned for a CPU alone
        methods = {name: method for name, method in methods.items() if name != method.quantized_name} or methods
    return replace(request, profile=profile, methods=methods), [offer]


def _dtype(value: str | None) -> str | None:
    if value is None:
        return None
    return DTYPES.get(value) or one_of("dtype", value, (*DTYPES.values(), *DTYPES))


def _hours(given: float | str | None) -> float | None:
    """Return `90m`, `6h`, `2d`, or hours as a number."""
    if given is None:
        return None
    text = str(given)
    unit = {"m": 1 / 60, "h": 1.0, "d": 24.0}.get(text[-1:])
    try:
        hours = float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        hours = -1.0
    if not 0 < hours < 1e6:
        raise ConfigError(say("--deadline takes a time such as 90m, 6h or 2d, got {value!r}", value=text))
    return hours
