"""What the planner would have predicted of a finished run, beside what happened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tunedeck.comparison.budget import listed_offer
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Measurement, this_machine
from tunedeck.planner.hindsight import Comparison, compare_with_plan, cpu_of
from tunedeck.planner.machine import read_profile
from tunedeck.training.config import RunConfig

CURRENCY = "CNY"


def predicted_and_actual(
    measurement: Measurement, config: RunConfig, price_per_hour: float | None = None, currency: str = CURRENCY
) -> list[Comparison]:
    """Predicted beside actual for memory, time and, with a price or on a GPU with a listed price, money."""
    from tunedeck.tasks.registry import view_of_values

    offer = None if price_per_hour else listed_offer(measurement.machine.gpu, currency)
    listed = offer.price_per_hour.expected if offer else None
    return compare_with_plan(
        measurement,
        config.method,
        shape=view_of_values(config.task).plan_shape(config.task),
        accumulation=config.training.gradient_accumulation_steps,
        price_per_hour=price_per_hour or listed,
        currency=currency,
        products_flops_per_s=_products_rate(measurement),
    )


def _products_rate(measurement: Measurement) -> float | None:
    """This CPU's rate of matrix products in the run's precision, for a run made here if nothing was calibrated."""
    machine = cpu_of(measurement.machine)
    if measurement.device != "cpu" or machine != cpu_of(this_machine()) or read_profile(machine) is not None:
        return None
    return _measured_rate(measurement.dtype)


@cache
def _measured_rate(dtype: str) -> float:
    import torch

    from tunedeck.training.calibrate import products_flops_per_s

    return products_flops_per_s(getattr(torch, dtype))


def cost_of(measurement: Mapping[str, Any]) -> str | None:
    """What a recorded run's training time costs by the price list; None where its GPU is not listed."""
    offer = listed_offer(measurement["machine"]["gpu"], CURRENCY)
    if offer is None:
        return None
    amount = offer.price_per_hour.expected * measurement["train_s"] / 3600
    return say("{amount:.2f} {currency}, by the market list", amount=amount, currency=CURRENCY)
