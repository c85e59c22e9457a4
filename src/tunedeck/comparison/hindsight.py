"""Compare the planner's prediction with the actual values of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from tunedeck.comparison.budget import listed_offer
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Measurement, this_machine
from tunedeck.core.run_length import DEFAULT_EPOCHS
from tunedeck.planner.hindsight import PredictedAndActual, compare_with_plan, cpu_of
from tunedeck.planner.memory import Setup
from tunedeck.planner.processor import Processor, other_load, product_shape
from tunedeck.training.config import RunConfig

CURRENCY = "CNY"


def predicted_and_actual(
    measurement: Measurement, config: RunConfig, price_per_hour: float | None = None, currency: str = CURRENCY
) -> list[PredictedAndActual]:
    """Return predicted and actual memory, time and, with a price or on a GPU with a listed price, money."""
    from tunedeck.tasks.registry import view_of

    offer = None if price_per_hour else listed_offer(measurement.machine.gpu, currency)
    listed = offer.price_per_hour.expected if offer else None
    return compare_with_plan(
        measurement,
        config.method,
        shape=view_of(config.task).plan_shape(config.task),
        accumulation=config.training.gradient_accumulation_steps,
        price_per_hour=price_per_hour or listed,
        currency=currency,
        epochs=measurement.epochs or config.training.epochs or DEFAULT_EPOCHS,
        processor=partial(_processor, measurement) if _was_here(measurement) else None,
    )


def _was_here(measurement: Measurement) -> bool:
    """Tell whether a run was made on this machine's processor."""
    return measurement.device == "cpu" and cpu_of(measurement.machine) == cpu_of(this_machine())


def _processor(measurement: Measurement, setup: Setup) -> Processor:
    """Return this processor's rate in the run's precision right after a run, and the load of other programs."""
    took_s = measurement.train_s + measurement.eval_s
    return Processor(_products_rate(measurement.dtype, product_shape(setup)), other_load(took_s))


@cache
def _products_rate(dtype: str, shape: tuple[int, int, int]) -> float:
    import torch

    from tunedeck.training.calibrate import products_flops_per_s

    return products_flops_per_s(getattr(torch, dtype), shape)


def cost_of(measurement: Mapping[str, Any]) -> str | None:
    """Return the cost of a recorded run's training time by the price list; None if its GPU is not listed."""
    offer = listed_offer(measurement["machine"]["gpu"], CURRENCY)
    if offer is None:
        return None
    amount = offer.price_per_hour.expected * measurement["train_s"] / 3600
    return say("{amount:.2f} {currency}, by the market list", amount=amount, currency=CURRENCY)
