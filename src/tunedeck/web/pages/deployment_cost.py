"""Cost of a deployment: which GPUs serve a model at a load, and for how much a month."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from tunedeck.core.i18n import say
from tunedeck.planner.deploy import Deployment, DeployRow, deploy_cost, training_days
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.quoted_costs import DEPLOYMENTS, DeploymentExample, deployment_row
from tunedeck.planner.words import number_text, spread
from tunedeck.web.controls import Computed, Steps
from tunedeck.web.pages.library import address
from tunedeck.web.pages.training_cost import explain_ranges, model_choice, parts, show_range
from tunedeck.web.screen import Screen, heading, same_by_hand, screen, table
from tunedeck.web.workspace import Workspace

REQUESTS = (100, 1000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000)
INPUTS = (16, 32, 64, 128, 256, 512, 1024, 2048)
OUTPUTS = (16, 32, 64, 128, 256, 512, 1024)
ADAPTERS = (1, 2, 5, 10, 20, 50, 100)
_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a day, tokens of each, and the adapters that answer them."""

    requests: int
    inputs: int
    outputs: int
    adapters: int

    @property
    def rate(self) -> float:
        """Return requests per second."""
        return round(self.requests / _SECONDS, 6)


def page(work: Workspace) -> Callable[..., None]:
    """Return the screen of what a deployment costs."""

    def cost(
        model: str = "qwen-7b", requests: int = 10_000, inputs: int = 256, outputs: int = 128, adapters: int = 1
    ) -> None:
        with screen("/cost") as here:
            heading(say("What a deployment costs"))
            parts("/cost/deployment")
            with ui.element("div").classes("box cards"):
                models = model_choice(model)
                sliders = {
                    "requests": Steps(say("requests a day"), REQUESTS, requests),
                    "inputs": Steps(say("tokens of a request"), INPUTS, inputs),
                    "outputs": Steps(say("tokens of an answer"), OUTPUTS, outputs),
                    "adapters": Steps(say("adapters on one base"), ADAPTERS, adapters),
                }
                trained = ui.number(say("The training cost, CNY"), min=0.01).props("outlined dense")
            _computed(here, models, sliders, trained)

    return cost


def _computed(here: Screen, models: Any, sliders: Mapping[str, Steps], trained: Any) -> None:
    """Show what the model costs and the quoted costs, and renew them when a choice changes."""

    def load() -> Load:
        found = {key: one.value for key, one in sliders.items()}
        causal = find_planned_model(models.value).spec.causal  # an encoder answers with no tokens
        return Load(**{**found, "outputs": found["outputs"] if causal else 0})

    of_model = Computed(
        here, lambda: _deployment(models.value, load()), lambda found: _show(found, load(), trained.value)
    )
    heading(say("Commonly quoted costs beside the plan, at this load"), 2)
    ui.label(
        say("At the quoted prices per hour, each machine with a model of the size that is quoted for it.")
    ).classes("faint")
    quoted = Computed(here, lambda: _quoted(load(), sliders["outputs"].value), _show_quoted)

    async def renew() -> None:
        values = {"model": models.value, **{key: str(one.value) for key, one in sliders.items()}}
        ui.navigate.history.replace(address("/cost/deployment", **values))
        await of_model.renew()
        await quoted.renew()

    for choice in (models, trained):
        choice.on_value_change(renew)
    for slider in sliders.values():
        slider.on_change(renew)


def _deployment(model: str, load: Load) -> Deployment:
    return deploy_cost(
        model, rate=load.rate, input_tokens=load.inputs, output_tokens=load.outputs, adapters=load.adapters
    )


def _quoted(load: Load, outputs: int) -> list[tuple[DeploymentExample, DeployRow]]:
    return [(one, deployment_row(one, load.rate, load.inputs, outputs)) for one in DEPLOYMENTS]


def _show(found: Deployment, load: Load, trained: float | None) -> None:
    _show_cheapest(found, trained)
    cheapest: dict[tuple[str, str], DeployRow] = {}
    for row in found.rows:
        cheapest.setdefault((_gpu(row), row.precision), row)
    columns = [say("GPU"), say("precision"), say("requests/s of one"), say("GPUs")]
    columns += [say("CNY a month"), say("CNY per 1,000 requests")]
    explain_ranges(row.month for row in cheapest.values())
    table(columns, [_cells(row) for row in cheapest.values()], numbers_from=2)
    model = shlex.quote(found.model.name)
    same_by_hand(
        f"tunedeck deploy-cost --model {model} --rate {load.rate:g} --input-tokens {load.inputs} "
        f"--output-tokens {load.outputs} --adapters {load.adapters}",
        f"import tunedeck as td\n\nfound = td.deploy_cost({found.model.name!r}, rate={load.rate:g}, "
        f"input_tokens={load.inputs}, output_tokens={load.outputs}, adapters={load.adapters})",
    )


def _show_cheapest(found: Deployment, trained: float | None) -> None:
    best = found.cheapest
    if best is None:
        ui.label(say("No GPU of the price list holds this model.")).classes("box w-full")
    else:
        with ui.element("div").classes("box w-full"):
            ui.label(_monthly(best.month.expected)).classes("number")
            show_range(best.month, _monthly)
            ui.label(say("{cards} × {gpu}, {precision}", cards=best.cards, gpu=_gpu(best), precision=best.precision))
            if found.service.adapters > 1:
                ui.label(
                    say(
                        "{count} adapters on one base: {one:,.0f} {currency} a month; as {count} deployments: "
                        "{many:,.0f} on {cards} GPUs",
                        count=found.service.adapters,
                        one=best.month.expected,
                        currency=best.offer.currency,
                        many=best.separate_month.expected,
                        cards=best.separate_cards,
                    )
                )
            if trained:
                days = training_days(best, trained)
                ui.label(say("after {days:.1f} days the deployment has cost as much as the training", days=days))


def _monthly(cost: float) -> str:
    return say("{cost} CNY a month", cost=number_text(cost))


def _gpu(row: DeployRow) -> str:
    return row.offer.gpu.name


def _cells(row: DeployRow) -> list[str]:
    if not row.fits:
        return [_gpu(row), row.precision, say("does not fit"), "–", "–", "–"]
    each = spread(row.per_1000) if row.per_1000 else "–"
    return [_gpu(row), row.precision, f"{row.capacity_per_s.expected:.3g}", str(row.cards), spread(row.month), each]


def _show_quoted(found: Sequence[tuple[DeploymentExample, DeployRow]]) -> None:
    columns = [say("GPU"), say("model"), say("requests/s of one"), say("GPUs"), say("CNY/hour: quoted")]
    columns += [say("CNY/month: quoted"), say("CNY/month: plan")]
    cells = [
        [
            _gpu(row),
            f"{example.model}, {row.precision}",
            f"{row.capacity_per_s.expected:.3g}" if row.fits else say("does not fit"),
            str(row.cards) if row.fits else "–",
            example.per_hour,
            example.per_month,
            spread(row.month) if row.fits else "–",
        ]
        for example, row in found
    ]
    table(columns, cells, numbers_from=2)
