"""`tunedeck deploy-cost`."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.planner.deploy import Deployment, DeployRow
    from tunedeck.planner.serving import PlannedService

load = partial(typer.Option, rich_help_panel=say("Load"))
compared = partial(typer.Option, rich_help_panel=say("Compared with"))
SHOWN_ROWS = 12


def deploy_cost(
    model: options.PlannedModel,
    adapters: Annotated[int, typer.Option(help=say("adapters, one for each task, on one base"))] = 1,
    r: Annotated[int, typer.Option("--r", help=say("LoRA rank of the adapters"))] = 16,
    rate: Annotated[float | None, load(help=say("requests per second (default: GPUs that run all day)"))] = None,
    input_tokens: Annotated[int, load(help=say("tokens a request brings"))] = 256,
    output_tokens: Annotated[int | None, load(help=say("tokens an answer has; 0 for an encoder"))] = None,
    latency: Annotated[float | None, load(help=say("seconds within which a request must be answered"))] = None,
    gpu: Annotated[str | None, options.where(help=say("GPUs, separated by commas; cpu too"))] = None,
    currency: options.Currency = "CNY",
    price_list: options.PriceList = "market",
    prices: options.PriceFile = None,
    exchange_rate: options.ExchangeRates = None,
    training_cost: Annotated[float | None, compared(help=say("what the training cost"))] = None,
    api_price: Annotated[float | None, compared(help=say("what another service takes per million tokens"))] = None,
    endpoint_price: Annotated[float | None, compared(help=say("what a rented endpoint takes per hour"))] = None,
    figure: Annotated[
        Path | None, typer.Option(help=say("draw cost against load into this file, .png or .svg"))
    ] = None,
    everything: options.AllRows = False,
    as_json: options.AsJson = False,
) -> None:
    """Show which GPUs can serve a model with its adapters, at which rate and monthly cost."""
    import tunedeck as td
    from tunedeck.planner.prices import check_sizes

    against = {"training_cost": training_cost, "api_price": api_price, "endpoint_price": endpoint_price}
    check_sizes(against)
    found = td.deploy_cost(
        model,
        adapters=adapters,
        r=r,
        rate=rate,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        latency=latency,
        gpus=gpu,
        currency=currency,
        price_list=price_list,
        prices=prices,
        exchange_rates=exchange_rate or (),
    )
    print_json(found.to_json(**against)) if as_json else _show(found, against, everything)
    if figure is not None:
        from tunedeck.planner.deploy_figure import draw

        draw(figure, found.rows, found.service, api_price, _title(found))
        tell(say("the figure is in {path}", path=figure))


def _title(found: Deployment) -> str:
    service, rate = found.service, found.rate_per_s
    return say(
        "{model}, adapters: {adapters}; {inputs} tokens in, {outputs} out, {load}",
        model=found.model.name,
        adapters=service.adapters,
        inputs=service.input_tokens,
        outputs=service.output_tokens,
        load=say("all day") if rate is None else say("{rate:g} requests per second", rate=rate),
    )


def _show(found: Deployment, against: dict[str, float | None], everything: bool) -> None:
    from tunedeck.cli.plan_output import is_wide, tell_stale

    rows = found.rows
    wide = is_wide()
    cheapest = {(row.offer.gpu.name, row.precision): row for row in reversed(rows)}
    fitting = [row for row in rows if row.fits and cheapest[row.offer.gpu.name, row.precision] is row]
    shown = list(rows) if everything else (fitting or list(rows))[:SHOWN_ROWS]
    currency = rows[0].offer.currency if rows else ""
    last = say("per 1000") if found.rate_per_s is not None else say("per 1000, full")
    columns = [say("GPU"), say("precision"), say("at once"), say("requests/s")]
    columns += [say("tokens/s")] if wide else []
    columns += [say("GPUs"), say("{currency} a month", currency=currency), last]
    print_table(_title(found), columns, [_cells(row, wide) for row in shown], numbers_from=2)
    if not fitting:
        tell(say("no GPU holds this model within the latency target; try --latency, a larger GPU, or a smaller model"))
        return
    _tell_money(found.service, fitting[0], against)
    tell_stale([row.offer for row in shown])


def _cells(row: DeployRow, wide: bool) -> list[str]:
    from tunedeck.planner.deploy import cost_per_1000
    from tunedeck.planner.serving import LOAD
    from tunedeck.planner.words import spread

    columns = 8 if wide else 7
    start = [row.offer.gpu.name, row.precision]
    if not row.fits:
        return [*start, say("no") if row.slots == 0 else say("too slow"), *["-"] * (columns - 3)]
    full = cost_per_1000(row, LOAD * row.capacity_per_s.expected)
    rate = spread(row.capacity_per_s) if wide else f"{row.capacity_per_s.expected:.3g}"
    cells = [*start, str(row.at_once), rate, *([f"{row.tokens_per_s.expected:,.0f}"] if wide else [])]
    return [*cells, str(row.cards), spread(row.month), spread(row.per_1000) if row.per_1000 else f"{full:.2g}"]


def _tell_money(service: PlannedService, best: DeployRow, against: dict[str, float | None]) -> None:
    """The cheapest row in sentences: what it costs, one base against separate ones, and when it pays."""
    tell(_cheapest(best))
    if service.adapters > 1:
        tell(
            say(
                "{count} adapters on one base: {one:,.0f} {currency} a month; as {count} deployments: "
                "{many:,.0f} on {cards} GPUs",
                count=service.adapters,
                one=best.month.expected,
                currency=best.offer.currency,
                many=best.separate_month.expected,
                cards=best.separate_cards,
            )
        )
    _tell_comparisons(service, best, against)


def _cheapest(best: DeployRow) -> str:
    from tunedeck.planner.deploy import cost_per_1000

    name, currency = best.offer.gpu.name, best.offer.currency
    if best.per_million_tokens is not None:
        return say(
            "cheapest: {cards} x {gpu}, {month:,.0f} {currency} a month, {tokens:.2f} per million tokens",
            cards=best.cards,
            gpu=name,
            month=best.month.expected,
            currency=currency,
            tokens=best.per_million_tokens.expected,
        )
    tenth, full = (cost_per_1000(best, share * best.capacity_per_s.expected) for share in (0.1, 0.7))
    return say(
        "cheapest: {gpu}, {month:,.0f} {currency} a month; 1000 requests cost {full:.3g} at full load and {tenth:.3g} "
        "at a tenth",
        gpu=name,
        month=best.month.expected,
        currency=currency,
        full=full,
        tenth=tenth,
    )


def _tell_comparisons(service: PlannedService, best: DeployRow, against: dict[str, float | None]) -> None:
    """When the deployment has cost as much as the training, and when it beats paying per token or per hour."""
    from tunedeck.planner.deploy import even_hours_per_day, even_requests_per_day, training_days

    name = best.offer.gpu.name
    if (cost := against["training_cost"]) is not None:
        tell(
            say("after {days:.1f} days the deployment has cost as much as the training", days=training_days(best, cost))
        )
    if (price := against["api_price"]) is not None:
        requests = even_requests_per_day(best, service, price)
        tell(
            say(
                "paying {price:g} per million tokens is always cheaper than {gpu}, even at full load",
                price=price,
                gpu=name,
            )
            if math.isinf(requests)
            else say(
                "above {requests:,.0f} requests a day {gpu} is cheaper than {price:g} per million tokens",
                requests=requests,
                gpu=name,
                price=price,
            )
        )
    if (price := against["endpoint_price"]) is not None:
        hours = even_hours_per_day(best, price)
        tell(
            say(
                "a rented endpoint at {price:g} an hour is more expensive than {gpu} from {hours:.1f} hours a day on",
                price=price,
                gpu=name,
                hours=hours,
            )
            if hours <= 24
            else say("a rented endpoint at {price:g} an hour is cheaper than {gpu} even all day", price=price, gpu=name)
        )
