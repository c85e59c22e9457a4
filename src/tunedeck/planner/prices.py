"""Prices of GPUs: the named lists of prices.toml, the user's file over them, and currencies."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, renamed, say
from tunedeck.core.system_reason import system_reason
from tunedeck.core.toml import parse_toml
from tunedeck.planner.catalogue import Gpu, find_gpu
from tunedeck.planner.estimate import Estimate

STALE_DAYS = 90
BILLINGS = ("on-demand", "spot", "community", "floor", "list", "own")
HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Offer:
    """A GPU at a price per hour."""

    gpu: Gpu
    price_per_hour: Estimate
    price_per_month: Estimate | None
    currency: str
    billing: str
    date: str
    """When the price was read, YYYY-MM-DD; empty where the source does not say."""
    source: str
    list_name: str

    def days_old(self, today: datetime.date) -> int | None:
        """Return age of the price; None without a date."""
        return (today - datetime.date.fromisoformat(self.date)).days if self.date else None

    def is_stale(self, today: datetime.date) -> bool:
        """Tell whether the price is older than STALE_DAYS or undated."""
        days = self.days_old(today)
        return days is None or days > STALE_DAYS

    def per_month(self) -> Estimate:
        """Return the price of running all day: the monthly one if it is lower, else HOURS_PER_MONTH hours."""
        hourly = self.price_per_hour.scaled(HOURS_PER_MONTH)
        monthly = self.price_per_month
        return monthly if monthly is not None and monthly.expected < hourly.expected else hourly

    def source_json(self) -> dict[str, Any]:
        """Return where the price is from, as plain JSON values."""
        return {"list": self.list_name, "billing": self.billing, "source": self.source, "date": self.date or None}


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Offers and rates of exchange; `rates` is (from, to) to what one `from` costs in `to`."""

    offers: tuple[Offer, ...]
    """The offers of the list that was chosen."""
    others: tuple[Offer, ...]
    """The offers of the other lists, for GPUs that the chosen one does not price."""
    rates: Mapping[tuple[str, str], float]
    rate_sources: Mapping[tuple[str, str], str]

    def offers_of(self, gpu: Gpu) -> tuple[Offer, ...]:
        """Return a GPU's offer in the chosen list, else in any other; ConfigError if no list has a price."""
        found = tuple(offer for offer in self.offers if offer.gpu == gpu)
        found = found or tuple(offer for offer in self.others if offer.gpu == gpu)
        if not found:
            priced = dict.fromkeys(offer.gpu.name for offer in (*self.offers, *self.others))
            raise ConfigError(
                say(
                    "no price for {gpu}; give one in a file with --prices (priced: {known})",
                    gpu=gpu.name,
                    known=listing(priced),
                )
            )
        return found

    def convert(self, offer: Offer, currency: str) -> Offer:
        """Return the offer in another currency; ConfigError where no rate is known."""
        rate = self.rate(offer.currency, currency)
        month = offer.price_per_month
        return replace(
            offer,
            price_per_hour=offer.price_per_hour.scaled(rate),
            price_per_month=month and month.scaled(rate),
            currency=currency,
        )

    def rate(self, source: str, target: str) -> float:
        """Return the price of one unit of `source` in `target`."""
        if source == target:
            return 1.0
        if (source, target) in self.rates:
            return self.rates[source, target]
        if (target, source) in self.rates:
            return 1 / self.rates[target, source]
        known = sorted({name for pair in self.rates for name in pair})
        raise ConfigError(
            say(
                "no rate from {source} to {target} (known: {known})", source=source, target=target, known=listing(known)
            )
            + say(
                "; give one as --exchange-rate {source}=VALUE, what one {source} costs in {target}",
                source=source,
                target=target,
            )
        )


def read_prices(list_name: str = "market", own: Path | None = None) -> PriceBook:
    """Return the offers of a named list, those of a GPU replaced by the user's own for it.

    Raises ConfigError for an unknown list, and for a row of the user's file that is wrong, naming its line.
    """
    if list_name == "source-article":
        warnings.warn(renamed("--price-list source-article", "--price-list reference"), stacklevel=2)
        list_name = "reference"
    book = _bundled()
    names = tuple(dict.fromkeys(offer.list_name for offer in book.offers))
    if list_name not in names:
        raise ConfigError(
            say("no price list {name!r}", name=list_name)
            + nearest(list_name, names)
            + say("; there are: {names}", names=listing(names))
        )
    offers = tuple(offer for offer in book.offers if offer.list_name == list_name)
    others = tuple(offer for offer in book.offers if offer.list_name != list_name)
    if own is None:
        return PriceBook(offers, others, book.rates, book.rate_sources)
    mine = _read_own(own)
    replaced = {offer.gpu.name for offer in mine.offers}
    return PriceBook(
        (*mine.offers, *(offer for offer in offers if offer.gpu.name not in replaced)),
        others,
        {**book.rates, **mine.rates},
        {**book.rate_sources, **mine.rate_sources},
    )


def with_rates(book: PriceBook, assignments: Sequence[str], target: str) -> PriceBook:
    """Return the book with rates the user gave as `USD=7.1`: what one of it costs in `target`."""
    rates, sources = dict(book.rates), dict(book.rate_sources)
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        rate = _positive(value)
        if rate is None or not re.fullmatch(r"[A-Za-z]{3}", name):
            raise ConfigError(
                say("--exchange-rate takes CURRENCY=VALUE, such as USD=7.1, got {value!r}", value=assignment)
            )
        pair = (name.upper(), target)
        rates.pop((target, name.upper()), None)
        rates[pair], sources[pair] = rate, "--exchange-rate"
    return PriceBook(book.offers, book.others, rates, sources)


def chosen_offers(book: PriceBook, gpus: Sequence[str] | None, currency: str, with_cpus: bool) -> list[Offer]:
    """Return the offers of the GPUs named, in that order, or of all in the list; ConfigError for a GPU that is not
    known.
    """
    if gpus is None:
        return [book.convert(offer, currency) for offer in book.offers if with_cpus or offer.gpu.capability > 0]
    return [book.convert(offer, currency) for name in gpus for offer in book.offers_of(find_gpu(name))]


def gpu_names(gpus: str | Sequence[str] | None) -> list[str] | None:
    """Return GPUs as a list, from text with commas too; None where none are given."""
    if not gpus:
        return None
    return [name.strip() for name in (gpus.split(",") if isinstance(gpus, str) else gpus) if name.strip()]


def check_sizes(values: Mapping[str, float | None]) -> None:
    """Raise ConfigError for a number that is not above 0, or absurd."""
    for name, value in values.items():
        if value is not None and not 0 < value < 1e12:
            raise ConfigError(say("{name} must be above 0, got {value}", name=name, value=value))


@cache
def _bundled() -> PriceBook:
    text = files("tunedeck.planner").joinpath("prices.toml").read_text(encoding="utf-8")
    return _book(text, "prices.toml", "")


def _read_own(path: Path) -> PriceBook:
    try:
        text = path.read_text(encoding="utf-8")
        return _book(text, str(path), path.stem)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            say("cannot read the price file {path}: {reason}", path=path, reason=system_reason(error))
        ) from error


def _book(text: str, path: str, list_name: str) -> PriceBook:
    try:
        table = parse_toml(text)
    except ValueError as error:
        raise ConfigError(say("the price file {path} is not TOML: {reason}", path=path, reason=error)) from error
    for key in table:
        if key not in ("price", "rate"):
            raise ConfigError(
                say(
                    "the price file {path} has the unknown table {key!r}; allowed: [[price]], [[rate]]",
                    path=path,
                    key=key,
                )
            )
    lines = {name: _lines(text, name) for name in ("price", "rate")}
    offers, rates, sources = [], {}, {}
    for number, row in enumerate(table.get("price", [])):
        try:
            offers.append(_offer(row, list_name))
        except (ConfigError, ValueError, TypeError, KeyError) as error:
            raise _wrong(path, lines["price"], number, error) from error
    for number, row in enumerate(table.get("rate", [])):
        try:
            pair = (str(row["from"]).upper(), str(row["to"]).upper())
            rates[pair] = _checked_positive(row["value"], "value")
            sources[pair] = f"{row['source']} ({row.get('date', '')})" if row.get("source") else ""
        except (ConfigError, ValueError, TypeError, KeyError) as error:
            raise _wrong(path, lines["rate"], number, error) from error
    return PriceBook(tuple(offers), (), rates, sources)


def _offer(row: Mapping[str, Any], list_name: str) -> Offer:
    known = ("list", "gpu", "price", "month", "currency", "billing", "date", "source")
    for key in row:
        if key not in known:
            raise ConfigError(say("unknown key {key!r}", key=key) + nearest(key, known))
    billing, date = one_of("billing", str(row.get("billing", "own")), BILLINGS), str(row.get("date", ""))
    if date:
        datetime.date.fromisoformat(date)
    currency = str(row["currency"])
    if not re.fullmatch(r"[A-Z]{3}", currency):
        raise ConfigError(say("currency must be three capital letters such as CNY, got {value!r}", value=currency))
    return Offer(
        gpu=find_gpu(str(row["gpu"])),
        price_per_hour=_range(row["price"], "price"),
        price_per_month=_range(row["month"], "month") if "month" in row else None,
        currency=currency,
        billing=billing,
        date=date,
        source=str(row.get("source", "")),
        list_name=str(row.get("list", list_name)),
    )


def _range(value: Any, key: str) -> Estimate:
    """Return a price, or [low, high]."""
    if not isinstance(value, list):
        return Estimate.exactly(_checked_positive(value, key))
    low, high = (_checked_positive(part, key) for part in value)
    return Estimate(low, (low + high) / 2, high)


def _checked_positive(value: Any, key: str) -> float:
    number = _positive(value)
    if number is None or isinstance(value, (str, bool)):
        raise ConfigError(say("{key} must be a number above 0, got {value!r}", key=key, value=value))
    return number


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def _lines(text: str, table: str) -> list[int]:
    """Return line numbers at which the rows of a table begin."""
    return [number for number, line in enumerate(text.splitlines(), start=1) if line.strip().startswith(f"[[{table}]]")]


def _wrong(path: str, lines: Sequence[int], number: int, error: Exception) -> ConfigError:
    reason = say("the key {key} is missing", key=error) if isinstance(error, KeyError) else str(error)
    line = lines[number] if number < len(lines) else 1
    return ConfigError(say("{path}, line {line}: {reason}", path=path, line=line, reason=reason))
