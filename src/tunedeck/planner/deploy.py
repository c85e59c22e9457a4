"""Money of a deployment: GPUs needed at a load, cost per month, per thousand requests and per million tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.methods.registry import DEFAULT_METHOD, config_of
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.models import PlannedModel, find_planned_model
from tunedeck.planner.prices import (
    HOURS_PER_MONTH,
    Offer,
    check_sizes,
    chosen_offers,
    gpu_names,
    read_prices,
    with_rates,
)
from tunedeck.planner.serving import (
    BAND,
    LOAD,
    PlannedService,
    Precision,
    best_at_once,
    request_s,
    requests_per_s,
    served_bytes,
    slots,
    step_s,
)

SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
DECODED_TOKENS = 128
"""Tokens of an answer where none are given."""


@dataclass(frozen=True, slots=True)
class DeployRow:
    """A model on one offer at a precision; costs are in the offer's currency."""

    offer: Offer
    precision: Precision
    weights_bytes: float
    slots: int
    at_once: int
    latency_s: Estimate | None
    capacity_per_s: Estimate
    """Requests of one GPU within the latency target."""
    tokens_per_s: Estimate
    """Output tokens for a decoder, input tokens for an encoder, at that capacity."""
    single_tokens_per_s: float
    """Tokens per second of a single request; 0 for an encoder."""
    cards: int
    """For the rate, at LOAD of their capacity; 1 where no rate is given."""
    month: Estimate
    per_1000: Estimate | None
    per_million_tokens: Estimate | None
    separate_month: Estimate
    """The adapters as separate deployments, each with its GPUs and its share of the rate."""
    separate_cards: int

    @property
    def fits(self) -> bool:
        """Tell whether a GPU holds it and answers in time."""
        return self.at_once > 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""

        def values(estimate: Estimate | None) -> dict[str, float] | None:
            return estimate.to_json() if estimate else None

        return {
            "gpu": self.offer.gpu.name,
            "precision": self.precision,
            "fits": self.fits,
            "weights_bytes": self.weights_bytes,
            "slots": self.slots,
            "at_once": self.at_once,
            "latency_s": values(self.latency_s),
            "requests_per_s": values(self.capacity_per_s),
            "tokens_per_s": values(self.tokens_per_s),
            "single_tokens_per_s": self.single_tokens_per_s,
            "cards": self.cards,
            "cost_per_month": values(self.month),
            "cost_per_1000_requests": values(self.per_1000),
            "cost_per_million_tokens": values(self.per_million_tokens),
            "separate_cost_per_month": values(self.separate_month),
            "separate_cards": self.separate_cards,
            "currency": self.offer.currency,
            "price_per_hour": self.offer.price_per_hour.to_json(),
            "price": self.offer.source_json(),
        }


@final
@dataclass(frozen=True, slots=True)
class Deployment:
    """A model with its adapters on every GPU that was asked for, at a load."""

    model: PlannedModel
    service: PlannedService
    rate_per_s: float | None
    rows: tuple[DeployRow, ...]
    """The rows that fit, sorted by cost, then the others."""

    @property
    def cheapest(self) -> DeployRow | None:
        """Return the cheapest row that fits; None where none does."""
        return next((row for row in self.rows if row.fits), None)

    def to_json(
        self, training_cost: float | None = None, api_price: float | None = None, endpoint_price: float | None = None
    ) -> dict[str, Any]:
        """Return plain JSON values, with the points from which the cheapest row pays against the prices given."""
        found: dict[str, Any] = {
            "model": self.model.name,
            "adapters": self.service.adapters,
            "rate_per_s": self.rate_per_s,
            "rows": [row.to_json() for row in self.rows],
        }
        best = self.cheapest
        if best is not None:
            requests = None if api_price is None else even_requests_per_day(best, self.service, api_price)
            hours = None if endpoint_price is None else even_hours_per_day(best, endpoint_price)
            found["cheapest"] = {
                "gpu": best.offer.gpu.name,
                "training_break_even_days": None if training_cost is None else training_days(best, training_cost),
                "token_price_break_even_requests_per_day": None if requests in (None, math.inf) else requests,
                "hour_price_break_even_hours_per_day": hours,
            }
        return found


def deploy_cost(
    model: str,
    *,
    adapters: int = 1,
    r: int = 16,
    rate: float | None = None,
    input_tokens: int = 256,
    output_tokens: int | None = None,
    latency: float | None = None,
    gpus: str | Sequence[str] | None = None,
    currency: str = "CNY",
    price_list: str = "market",
    prices: str | Path | None = None,
    exchange_rates: Sequence[str] = (),
) -> Deployment:
    """Return which GPUs hold a model with its adapters, how much they answer, and what that costs a month.

    `model` is a name such as qwen-7b, a hub id, a `bundled:` name or the folder of a config.json; `adapters` LoRAs of
    rank `r` on all linear layers share it. The load is `rate` requests per second (None: a GPU that runs all day) of
    `input_tokens` in and `output_tokens` out (128 for a decoder, 0 for an encoder), each answered within `latency`
    seconds. `gpus` are names of the catalogue, "cpu" too; prices are those of `td.plan`.

    Raises ModelError for an unknown model, ConfigError for a number or a name that does not fit.
    """
    planned = find_planned_model(model)
    check_sizes({"rate": rate, "latency": latency})
    service = _service(planned, adapters, r, input_tokens, output_tokens, latency)
    own = None if prices is None else Path(prices)
    book = with_rates(read_prices(price_list, own), exchange_rates, currency.upper())
    offers = chosen_offers(book, gpu_names(gpus), currency.upper(), with_cpus=True)
    return Deployment(planned, service, rate, tuple(deploy_rows(service, rate, offers)))


def _service(
    model: PlannedModel, adapters: int, r: int, inputs: int, outputs: int | None, latency: float | None
) -> PlannedService:
    chosen = outputs if outputs is not None else (DECODED_TOKENS if model.spec.causal else 0)
    if chosen and not model.spec.causal:
        raise ConfigError(
            say("{model} is an encoder and answers with no tokens; use --output-tokens 0", model=model.name)
        )
    limit = model.max_tokens
    if limit is not None and inputs + chosen > limit:
        raise ConfigError(
            say(
                "{model} takes at most {limit} tokens, got {value} in and out",
                model=model.name,
                limit=limit,
                value=inputs + chosen,
            )
        )
    adapter = config_of(DEFAULT_METHOD, {"r": r, "target_modules": "all-linear"})
    parameters = adapter.count_parameters(model.spec)
    return PlannedService(model.spec, adapters, parameters, inputs, chosen, latency)


def deploy_rows(service: PlannedService, rate_per_s: float | None, offers: Sequence[Offer]) -> list[DeployRow]:
    """Return a row for each offer and each precision that makes sense on it; what fits first, the cheapest on top."""
    rows = [_row(service, rate_per_s, offer, p) for offer in offers for p in precisions(service, offer)]
    return sorted(rows, key=lambda row: (not row.fits, row.month.expected))


def precisions(service: PlannedService, offer: Offer) -> tuple[Precision, ...]:
    """Return the precisions to plan: int8 (ONNX) on a CPU; 16 bits on a GPU, decoders in 4 bits too where the kernels
    support it (compute capability 7.0).
    """
    if not offer.gpu.capability:
        return ("int8",)
    return ("16-bit", "4-bit") if service.output_tokens and offer.gpu.capability >= 7.0 else ("16-bit",)


def cards_needed(rate_per_s: float | None, capacity_per_s: float) -> int:
    """Return GPUs that carry a rate at LOAD of their capacity, at least one; 0 where a GPU cannot answer at all."""
    if capacity_per_s <= 0:
        return 0
    return 1 if rate_per_s is None else max(1, math.ceil(rate_per_s / (LOAD * capacity_per_s)))


def cost_per_1000(row: DeployRow, rate_per_s: float) -> float:
    """Return the cost per 1,000 requests at another load than the row's, for the GPUs that it needs all day."""
    cards = cards_needed(rate_per_s, row.capacity_per_s.expected)
    return cards * row.offer.per_month().expected / (rate_per_s * SECONDS_PER_MONTH) * 1000


def training_days(row: DeployRow, training_cost: float) -> float:
    """Return days of deployment after which it has cost as much as the training did."""
    return training_cost / (row.month.expected / DAYS_PER_MONTH)


def even_requests_per_day(row: DeployRow, service: PlannedService, price_per_million_tokens: float) -> float:
    """Return requests a day from which your GPUs are cheaper than paying per token; inf where the GPUs cannot carry
    them.
    """
    requests = row.month.expected / DAYS_PER_MONTH / (price_per_million_tokens * service.tokens / 1e6)
    possible = row.cards * row.capacity_per_s.expected * 86400
    return requests if requests <= possible else math.inf


def even_hours_per_day(row: DeployRow, price_per_hour: float) -> float:
    """Return hours a day of a rented endpoint that cost as much as these GPUs all day; above them, your own are
    cheaper.
    """
    return row.month.expected / DAYS_PER_MONTH / price_per_hour


def _row(service: PlannedService, rate: float | None, offer: Offer, precision: Precision) -> DeployRow:
    gpu = offer.gpu
    at_once = best_at_once(service, gpu, precision)
    capacity = requests_per_s(service, gpu, precision)
    cards = cards_needed(rate, capacity)
    month = offer.per_month().scaled(cards)
    alone = replace(service, adapters=min(1, service.adapters))
    services = max(1, service.adapters)
    alone_cards = services * cards_needed(
        None if rate is None else rate / services, requests_per_s(alone, gpu, precision)
    )
    latency = request_s(service, gpu, precision, at_once) if at_once else 0.0
    single = 1 / step_s(service, gpu, precision, 1) if service.output_tokens else 0.0
    load = None if rate is None or not cards else rate * SECONDS_PER_MONTH
    return DeployRow(
        offer=offer,
        precision=precision,
        weights_bytes=served_bytes(service, precision),
        slots=slots(service, gpu, precision),
        at_once=at_once,
        latency_s=Estimate(latency / BAND[1], latency, latency / BAND[0]) if at_once else None,
        capacity_per_s=Estimate.around(capacity, *BAND),
        tokens_per_s=Estimate.around(capacity * (service.output_tokens or service.input_tokens), *BAND),
        single_tokens_per_s=single,
        cards=cards,
        month=month,
        per_1000=(load and month.scaled(1000 / load)) or None,
        per_million_tokens=(load and month.scaled(1e6 / (load * service.tokens))) or None,
        separate_month=offer.per_month().scaled(alone_cards),
        separate_cards=alone_cards,
    )
