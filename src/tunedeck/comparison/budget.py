"""What every run may use up: examples, minutes or money; and what an hour of this machine costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunedeck.comparison.report.result import Price
from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.training.config import override

UNTIL_TIME_IS_UP = 1_000_000.0
"""Epochs of a run that its minutes end."""


def price_of(per_hour: float | None, currency: str) -> Price | None:
    """The price given, else the card's in the market list; None for a machine of one's own and for a card without a price."""
    if per_hour is not None:
        return Price(per_hour, currency, say("as given by --price-per-hour"))
    card = _card()
    if card is None:
        return None
    from tunedeck.planner.catalogue import find_gpu
    from tunedeck.planner.prices import read_prices

    book = read_prices()
    try:
        offer = book.convert(book.offers_of(find_gpu(card))[0], currency)
    except ConfigError:
        return None
    return Price(offer.price_per_hour.expected, currency, say("{card} in the price list, {date}", card=offer.gpu.name, date=offer.date or say("undated")))  # fmt: skip


def _card() -> str | None:
    """The first GPU's name."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def with_budget(
    values: dict[str, Any], examples: int | None, minutes: float | None, money: float | None, price: Price | None
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The run's values with the budget of each run in them, and the budget in words.

    Minutes and money end a run by the clock, and go through the data as often as there is time unless epochs or steps are
    set. Raises ConfigError for both at once, and for money without a price.
    """
    if minutes is not None and money is not None:
        raise ConfigError(say("give either --minutes or --budget, not both"))
    if money is not None:
        if price is None:
            raise ConfigError(say("--budget needs to know what an hour costs; give --price-per-hour"))
        minutes = 60 * money / price.per_hour
    training: Mapping[str, Any] = values.get("training", {})
    if minutes is not None and not {"epochs", "max_steps"} & {key for key, value in training.items() if value is not None}:  # fmt: skip
        values = override(values, {"training.epochs": UNTIL_TIME_IS_UP})
    return override(values, {"data.train_size": examples, "training.max_minutes": minutes}), _in_words(values, minutes, money, price)  # fmt: skip


def _in_words(values: Mapping[str, Any], minutes: float | None, money: float | None, price: Price | None) -> str:
    training: Mapping[str, Any] = values.get("training", {})
    if money is not None and minutes is not None and price is not None:
        return say("{money:g} {currency} for each run, {minutes:.3g} minutes of training", money=money, currency=price.currency, minutes=minutes)  # fmt: skip
    if minutes is not None:
        return say("{minutes:.3g} minutes of training for each run", minutes=minutes)
    if training.get("max_steps") is not None:
        return say("{steps} steps for each run", steps=training["max_steps"])
    return say("{epochs:g} epochs for each run", epochs=float(training.get("epochs", 2)))


def seeds_of(text: str | None, first: int) -> tuple[int, ...]:
    """`3` is three seeds from `first` on, `0,7,13` is those; ConfigError for anything else."""
    if text is None:
        return (first,)
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or ("," not in text and not 1 <= numbers[0] <= 100) or len(set(numbers)) < len(numbers):
        raise ConfigError(say("--seeds takes how many (3) or which (0,7,13), each once; got {value!r}", value=text))
    return tuple(numbers) if "," in text else tuple(range(first, first + numbers[0]))
