"""After a run: what the planner would have said of it beside what happened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from tunedeck.cli.console import megabytes, print_table, tell
from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say

if TYPE_CHECKING:
    from tunedeck.core.measurement import Measurement
    from tunedeck.planner.after import Comparison
    from tunedeck.training.config import RunConfig

CURRENCY = "CNY"


def compared(
    measurement: Measurement, config: RunConfig, price_per_hour: float | None = None, currency: str = CURRENCY
) -> list[Comparison]:
    """Predicted beside actual for memory, time and, with a price or on a card with a known one, money."""
    from tunedeck.planner.after import compare_with_plan

    return compare_with_plan(
        measurement,
        config.method_config(),
        task=config.task,
        accumulation=config.training.accumulation,
        price_per_hour=price_per_hour or _price(measurement.machine.gpu, currency),
        currency=currency,
        products_flops_per_s=_products_rate(measurement),
    )


def _products_rate(measurement: Measurement) -> float | None:
    """This CPU's rate of matrix products in the run's precision, where the run was made here and nothing was measured before."""
    from tunedeck.core.measurement import this_machine
    from tunedeck.planner.after import cpu_of
    from tunedeck.planner.machine import read_profile

    machine = cpu_of(measurement.machine)
    if measurement.device != "cpu" or machine != cpu_of(this_machine()) or read_profile(machine) is not None:
        return None
    return _measured_rate(measurement.dtype)


@cache
def _measured_rate(dtype: str) -> float:
    import torch

    from tunedeck.training.calibrate import products_flops_per_s

    return products_flops_per_s(getattr(torch, dtype))


def show(comparisons: list[Comparison]) -> None:
    """The table, and a line for each value outside its prediction or on an uncertain basis."""
    if not comparisons:
        return
    names = {"memory": say("peak memory"), "time": say("training time"), "cost": say("cost of the training time")}
    rows = [
        [
            names[c.quantity],
            f"{_value(c.predicted.expected, c.unit)} ({_value(c.predicted.low, c.unit)} - {_value(c.predicted.high, c.unit)})",
            _value(c.actual, c.unit),
            f"{c.actual / c.predicted.expected - 1:+.0%}" if c.predicted.expected else "-",
        ]
        for c in comparisons
    ]
    print_table(say("Predicted and actual"), [say("what"), say("predicted"), say("actual"), say("off by")], rows)
    for comparison in comparisons:
        text = comparison.basis or comparison.reason
        if text:
            tell(f"{names[comparison.quantity]}: {text}")


def _value(value: float, unit: str) -> str:
    if unit == "bytes":
        return megabytes(value)
    return f"{value:.1f} s" if unit == "s" else f"{value:.2f} {unit}"


def money_of(measurement: Mapping[str, Any]) -> str | None:
    """What a recorded run's training time costs by the market list; None where the card has no price there."""
    price = _price(measurement["machine"]["gpu"], CURRENCY)
    if price is None:
        return None
    amount = price * measurement["train_s"] / 3600
    return say("{amount:.2f} {currency}, by the market list", amount=amount, currency=CURRENCY)


def _price(gpu: str | None, currency: str) -> float | None:
    """What a card costs an hour in the market list; None for a machine of one's own or a card without a price."""
    from tunedeck.planner.catalogue import find_gpu
    from tunedeck.planner.prices import read_prices

    if not gpu:
        return None
    book = read_prices()
    try:
        return book.convert(book.offers_of(find_gpu(gpu))[0], currency).price_per_hour.expected
    except ConfigError:
        return None
