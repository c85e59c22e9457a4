"""Limit every run by examples, minutes or money, and price an hour of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunedeck.comparison.report.values import Price
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say, say_plural
from tunedeck.core.run_length import DEFAULT_EPOCHS, FEWEST_STEPS
from tunedeck.training.config import override

if TYPE_CHECKING:
    from tunedeck.planner.prices import Offer

UNTIL_TIME_IS_UP = 1_000_000.0
"""Epochs of a run that its minutes end."""
MAX_SEEDS = 100


def price_of(per_hour: float | None, currency: str) -> Price | None:
    """Return the price given, else the GPU's in the price list; None without a GPU and for a GPU without a price."""
    if per_hour is not None:
        return Price(per_hour, currency, say("as given by --price-per-hour"))
    offer = listed_offer(_first_gpu(), currency)
    if offer is None:
        return None
    source = say("{card} in the price list, {date}", card=offer.gpu.name, date=offer.date or say("undated"))
    return Price(offer.price_per_hour.expected, currency, source)


def listed_offer(gpu: str | None, currency: str) -> Offer | None:
    """Return the list price of a GPU; None without a GPU, or if the GPU or currency is not listed."""
    from tunedeck.planner.catalogue import find_gpu
    from tunedeck.planner.prices import read_prices

    if not gpu:
        return None
    book = read_prices()
    try:
        return book.convert(book.offers_of(find_gpu(gpu))[0], currency)
    except ConfigError:
        return None


def _first_gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def with_budget(
    values: dict[str, Any], examples: int | None, minutes: float | None, money: float | None, price: Price | None
) -> tuple[dict[str, Any], str]:
    """Return the run's values with the budget of each run in them, and the budget in words.

    Minutes and money end a run by the clock; unless epochs or steps are set, the run passes over the data until then.
    Raises ConfigError for a number that is not above 0, for minutes and money at once, and for money without a price.
    """
    _check_above_zero({"examples": examples})
    minutes = minutes_of(minutes, money, price)
    training: Mapping[str, Any] = values.get("training", {})
    in_words = _in_words(training, minutes, money, price)
    if minutes is not None and training.get("epochs") is None and training.get("max_steps") is None:
        values = override(values, {"training.epochs": UNTIL_TIME_IS_UP})
    return override(values, {"data.train_size": examples, "training.max_minutes": minutes}), in_words


def _in_words(training: Mapping[str, Any], minutes: float | None, money: float | None, price: Price | None) -> str:
    if money is not None and price is not None:
        return say(
            "{money:g} {currency} for each run, {minutes:.3g} minutes of training",
            money=money,
            currency=price.currency,
            minutes=minutes,
        )
    if minutes is not None:
        return say("{minutes:.3g} minutes of training for each run", minutes=minutes)
    if training.get("max_steps") is not None:
        return say("{steps} steps for each run", steps=training["max_steps"])
    if training.get("epochs") is None:
        return say(
            "{epochs:g} epochs, but {steps} steps at least, for each run", epochs=DEFAULT_EPOCHS, steps=FEWEST_STEPS
        )
    epochs = float(training["epochs"])
    return say_plural(
        "{epochs:g} epoch for each run", "{epochs:g} epochs for each run", count=1 if epochs == 1 else 2, epochs=epochs
    )


def seeds_of(wanted: int | str | Sequence[int] | None, first: int) -> tuple[int, ...]:
    """Return the seeds of every entry: 3 or `3` is three from `first` on; [0, 7, 13] or `0,7,13` is those; None is
    `first`.

    Raises ConfigError for anything else.
    """
    if wanted is None:
        return (first,)
    several = "," in wanted if isinstance(wanted, str) else not isinstance(wanted, int)
    try:
        parts = wanted.split(",") if isinstance(wanted, str) else [wanted] if isinstance(wanted, int) else wanted
        numbers = [int(part) for part in parts if str(part).strip()]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or (not several and not 1 <= numbers[0] <= MAX_SEEDS) or len(set(numbers)) < len(numbers):
        raise ConfigError(say("seeds takes how many (3) or which (0,7,13), each once; got {value!r}", value=wanted))
    return tuple(numbers) if several else tuple(range(first, first + numbers[0]))


def minutes_of(minutes: float | None, money: float | None, price: Price | None) -> float | None:
    """Return a limit in minutes, of which money buys as many as its price allows; None without a limit.

    Raises ConfigError for a number that is not above 0, for minutes and money at once, and for money without a price.
    """
    _check_above_zero({"minutes": minutes, "budget": money})
    if minutes is not None and money is not None:
        raise ConfigError(say("give either --minutes or --budget, not both"))
    if money is None:
        return minutes
    if price is None:
        raise ConfigError(say("--budget needs to know what an hour costs; give --price-per-hour"))
    return 60 * money / price.per_hour


def _check_above_zero(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < 1e12:
            raise ConfigError(say("{name} must be above 0, got {value}", name=name, value=value))
