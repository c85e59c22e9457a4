"""Cost of training: what a model, a method and an amount of data take on this machine and on rented GPUs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nicegui import ui

from tunedeck.core.bundle import read_bundles
from tunedeck.core.i18n import say
from tunedeck.core.units import duration
from tunedeck.planner.advice import reason_text, recommend
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.machine import THIS_MACHINE
from tunedeck.planner.models import known_models
from tunedeck.planner.plan import PlanRow
from tunedeck.planner.planning import PLANNED, Plan, plan
from tunedeck.planner.quoted_costs import TRAININGS, TrainingExample, training_rows
from tunedeck.planner.words import beyond_limits_text, gib, note_text, number_text, price_text, spread
from tunedeck.web.controls import Computed, Steps, with_question
from tunedeck.web.pages.library import address
from tunedeck.web.screen import Screen, heading, same_by_hand, screen, table
from tunedeck.web.workspace import Workspace

EXAMPLES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
EPOCHS = (1, 2, 3, 5, 10)
_MODEL, _ALL, _DAYS_FROM_H = "qwen-7b", "all", 72


@dataclass(frozen=True, slots=True)
class Size:
    """The amount of data and passes over it, as `td.plan` takes them."""

    samples: int
    tokens: int
    epochs: int


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen of what training costs."""

    def cost(
        model: str = _MODEL, method: str = _ALL, samples: int = 10_000, tokens: int = 512, epochs: int = 3
    ) -> None:
        with screen("/cost") as here:
            heading(say("What training costs"))
            parts("/cost")
            with ui.element("div").classes("box cards"):
                models, methods = model_choice(model), _method_choice(method)
                sliders = {
                    "samples": Steps(say("number of examples"), EXAMPLES, samples),
                    "tokens": Steps(say("tokens of an example"), TOKENS, tokens),
                    "epochs": Steps(say("epochs"), EPOCHS, epochs),
                }
            _computed(here, models, methods, sliders)

    return cost


def _computed(here: Screen, models: Any, methods: Any, sliders: Mapping[str, Steps]) -> None:
    """Show the plan of the model and the quoted costs, and renew them when a choice changes."""

    def size() -> Size:
        return Size(**{key: one.value for key, one in sliders.items()})

    of_model = Computed(
        here,
        lambda: _planned(models.value, methods.value, size()),
        lambda found: _show(*found, models.value, methods.value, size()),
    )
    heading(say("Commonly quoted costs beside the plan, for this amount of data"), 2)
    ui.label(
        say(
            "Introductions to fine-tuning quote these hours and costs without an amount of data. The plan beside them "
            "is computed for the amount that the sliders show, at the quoted prices per hour."
        )
    ).classes("faint")
    quoted = Computed(here, lambda: _quoted(size()), _show_quoted)

    async def renew() -> None:
        values = {"model": models.value, "method": methods.value, **asdict(size())}
        ui.navigate.history.replace(address("/cost", **{key: str(value) for key, value in values.items()}))
        await of_model.renew()
        await quoted.renew()

    for choice in (models, methods):
        choice.on_value_change(renew)
    for slider in sliders.values():
        slider.on_change(renew)


def _planned(model: str, method: str, size: Size) -> tuple[Plan, Plan]:
    """Return the plans for this machine and for everything that the price list offers."""
    methods = list(PLANNED) if method == _ALL else [method]
    own, rented = (
        plan(model, samples=size.samples, tokens=size.tokens, epochs=size.epochs, methods=methods, gpus=gpus)
        for gpus in ([THIS_MACHINE], None)
    )
    return own, rented


def _quoted(size: Size) -> list[tuple[TrainingExample, tuple[PlanRow, ...]]]:
    return [(one, training_rows(one, size.samples, size.tokens, size.epochs)) for one in TRAININGS]


def parts(chosen: str) -> None:
    """Show links to the two screens about cost."""
    with ui.row().classes("gap-4"):
        for path, name in (("/cost", say("Training")), ("/cost/deployment", say("Deployment"))):
            link = ui.link(name, path).classes("font-bold" if path == chosen else "")
            if path == chosen:
                link.props("aria-current=page")


def model_choice(value: str) -> Any:
    """Show a choice of the models that the planner knows, bundled ones first."""
    names = [*(f"bundled:{name}" for name in read_bundles("tunedeck.models")), *known_models()]
    with ui.column().classes("gap-0"):
        with_question(say("base model"), "base model")
        choice = ui.select(names, value=value if value in names else _MODEL, with_input=True)
        return choice.props("outlined dense").props(f'aria-label="{say("base model")}"').classes("w-full")


def _method_choice(value: str) -> Any:
    names = {_ALL: say("all methods"), **{name: name for name in PLANNED}}
    with ui.column().classes("gap-0"):
        with_question(say("method"), "adapter")
        choice = ui.select(names, value=value if value in names else _ALL)
        return choice.props("outlined dense").props(f'aria-label="{say("method")}"').classes("w-full")


def _show(own: Plan, rented: Plan, model: str, method: str, size: Size) -> None:
    heading(say("On this machine"), 2)
    show_own(next(iter(own.rows), None))
    heading(say("On rented GPUs"), 2)
    show_recommended(rented.rows)
    for change in rented.changes():
        ui.label(f"{change.gpu.name}: {change.flags}").classes("code")
    shown = cheapest_offers(rented.rows)
    explain_ranges(row.cost for row in shown)
    table(_columns(), [_cells(row) for row in shown], numbers_from=2)
    for note in dict.fromkeys(note for row in shown for note in row.notes):
        gpus = dict.fromkeys(row.offer.gpu.name for row in shown if note in row.notes)
        ui.label(f"{', '.join(gpus)}: {note_text(note)}").classes("faint text-sm")
    flags = " ".join(f"--{key} {value}" for key, value in asdict(size).items())
    arguments = ", ".join(f"{key}={value}" for key, value in asdict(size).items())
    one_method = ("", "") if method == _ALL else (f" --method {method}", f", methods={method!r}")
    same_by_hand(
        f"tunedeck plan --model {shlex.quote(model)}{one_method[0]} {flags}",
        f"import tunedeck as td\n\nplan = td.plan({model!r}, {arguments}{one_method[1]})",
    )


def show_own(row: PlanRow | None) -> None:
    """Show what a run takes on this machine."""
    with ui.element("div").classes("box w-full"):
        if row is None or not row.fits:
            ui.label(say("It does not fit into the memory of this machine."))
            return
        ui.label(_time(row.hours.total_h.expected)).classes("number")
        show_range(row.hours.total_h, _time)
        memory = gib(row.peak_device_bytes.expected)
        ui.label(say("{method}, {memory} of memory, no rent", method=row.method, memory=memory)).classes("faint")


def show_recommended(rows: Sequence[PlanRow]) -> None:
    """Show the GPU to rent with its cost, hours and memory, or why there is none."""
    chosen = recommend(rows)
    with ui.element("div").classes("box w-full"):
        if chosen is None:
            fits = any(row.fits for row in rows)
            ui.label(beyond_limits_text(rows) if fits else say("It fits none of these GPUs."))
            return
        row, gpu = chosen.row, chosen.row.offer.gpu.name
        time, memory = _time(row.hours.total_h.expected), gib(row.peak_device_bytes.expected)
        ui.label(_yuan(row.cost.expected)).classes("number")
        show_range(row.cost, _yuan)
        ui.label(say("{gpu}: {time}, {memory} of memory", gpu=gpu, time=time, memory=memory)).classes("faint")
        show_range(row.hours.total_h, _time)
        ui.label(
            say(
                "use {method} on {gpu}: {reason}",
                method=row.method,
                gpu=row.offer.gpu.name,
                reason=reason_text(chosen),
            )
        )


def show_range(estimate: Estimate, text: Callable[[float], str]) -> None:
    """Show the range of an estimate; nothing where it is exact."""
    if estimate.low < estimate.high:
        low, high = text(estimate.low), text(estimate.high)
        ui.label(say("nine times in ten from {low} to {high}", low=low, high=high)).classes("faint")


def explain_ranges(estimates: Iterable[Estimate]) -> None:
    """Show what the parentheses in the cells of a table are, where one of the estimates has them."""
    if any(one.low < one.high for one in estimates):
        ui.label(say("In parentheses: the range that holds the value nine times in ten.")).classes("faint")


def _time(hours: float) -> str:
    return duration(3600 * hours) if hours < _DAYS_FROM_H else say("{count:,.0f} days", count=hours / 24)


def _yuan(cost: float) -> str:
    return say("{cost} CNY", cost=number_text(cost))


def cheapest_offers(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Return the cheapest offer of each method and GPU, in the plan's order; those that do not fit come last."""
    found: dict[tuple[str, str], PlanRow] = {}
    for row in rows:
        found.setdefault((row.method, row.offer.gpu.name), row)
    return list(found.values())


def _columns() -> list[str]:
    cost = say("cost, {currency}", currency="CNY")
    return [say("method"), say("GPU"), say("fits"), "GiB", say("hours"), cost, say("per hour")]


def _cells(row: PlanRow) -> list[str]:
    memory = gib(row.peak_device_bytes.expected).removesuffix(" GiB")
    start = [row.method, row.offer.gpu.name, say("yes") if row.fits else say("no"), memory]
    spent = [spread(row.hours.total_h), spread(row.cost)] if row.fits else ["–", "–"]
    return [*start, *spent, price_text(row.offer)]


def _show_quoted(found: Sequence[tuple[TrainingExample, tuple[PlanRow, ...]]]) -> None:
    columns = [say("model"), say("method"), say("GPU"), say("hours: quoted"), say("hours: plan")]
    columns += [say("CNY: quoted"), say("CNY: plan")]
    cells = [
        [
            row.model,
            row.method,
            row.offer.gpu.name,
            example.hours,
            spread(row.hours.total_h) if row.fits else say("does not fit"),
            example.cost,
            spread(row.cost) if row.fits else "–",
        ]
        for example, rows in found
        for row in rows
    ]
    table(columns, cells, numbers_from=3)
