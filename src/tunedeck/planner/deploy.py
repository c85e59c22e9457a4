"""Money of a deployment: cards needed at a load, cost per month, per thousand requests and per million tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunedeck.planner.estimate import Estimate
from tunedeck.planner.prices import HOURS_PER_MONTH, Offer
from tunedeck.planner.serving import (
    BAND,
    LOAD,
    Precision,
    Service,
    best_at_once,
    request_s,
    requests_per_s,
    served_bytes,
    slots,
    step_s,
)

SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
DAYS_PER_MONTH = HOURS_PER_MONTH / 24


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
    """Requests of one card within the latency target."""
    tokens_per_s: Estimate
    """Output tokens for a decoder, input tokens for an encoder, at that capacity."""
    single_tokens_per_s: float
    """Of one request alone; 0 for an encoder."""
    cards: int
    """For the rate, at LOAD of their capacity; 1 where no rate is given."""
    month: Estimate
    per_1000: Estimate | None
    per_million_tokens: Estimate | None
    separate_month: Estimate
    """The same adapters as separate deployments, each with its own cards and its share of the rate."""
    separate_cards: int

    @property
    def fits(self) -> bool:
        """Whether a card holds it and answers in time."""
        return self.at_once > 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""

        def values(estimate: Estimate | None) -> dict[str, float] | None:
            return estimate.to_json() if estimate else None

        return {
            "gpu": self.offer.gpu.name, "precision": self.precision, "fits": self.fits, "weights_bytes": self.weights_bytes,
            "slots": self.slots, "at_once": self.at_once, "latency_s": values(self.latency_s),
            "requests_per_s": values(self.capacity_per_s), "tokens_per_s": values(self.tokens_per_s),
            "single_tokens_per_s": self.single_tokens_per_s, "cards": self.cards, "cost_per_month": values(self.month),
            "cost_per_1000_requests": values(self.per_1000), "cost_per_million_tokens": values(self.per_million_tokens),
            "separate_cost_per_month": values(self.separate_month), "separate_cards": self.separate_cards,
            "currency": self.offer.currency, "price_per_hour": self.offer.price_per_hour.to_json(),
            "price": self.offer.source_json(),
        }  # fmt: skip


def deploy_rows(service: Service, rate_per_s: float | None, offers: Sequence[Offer]) -> list[DeployRow]:
    """A row for each offer and each precision that makes sense on it; what fits first, the cheapest on top."""
    rows = [_row(service, rate_per_s, offer, p) for offer in offers for p in precisions(service, offer)]
    return sorted(rows, key=lambda row: (not row.fits, row.month.expected))


def precisions(service: Service, offer: Offer) -> tuple[Precision, ...]:
    """A CPU runs int8 (ONNX); a card 16 bits, decoders in 4 bits too where the kernels support it (compute capability 7.0)."""
    if not offer.gpu.capability:
        return ("int8",)
    return ("16-bit", "4-bit") if service.output_tokens and offer.gpu.capability >= 7.0 else ("16-bit",)


def cards_needed(rate_per_s: float | None, capacity_per_s: float) -> int:
    """Cards that carry a rate at LOAD of their capacity, at least one; 0 where a card cannot answer at all."""
    if capacity_per_s <= 0:
        return 0
    return 1 if rate_per_s is None else max(1, math.ceil(rate_per_s / (LOAD * capacity_per_s)))


def cost_per_1000(row: DeployRow, rate_per_s: float) -> float:
    """At another load than the row's: the cards that load needs, all day, over its requests."""
    cards = cards_needed(rate_per_s, row.capacity_per_s.expected)
    return cards * row.offer.per_month().expected / (rate_per_s * SECONDS_PER_MONTH) * 1000


def training_days(row: DeployRow, training_cost: float) -> float:
    """Days of deployment after which it has cost as much as the training did."""
    return training_cost / (row.month.expected / DAYS_PER_MONTH)


def even_requests_per_day(row: DeployRow, service: Service, price_per_million_tokens: float) -> float:
    """Requests a day from which one's own cards are cheaper than paying per token; inf where the cards cannot carry them."""
    requests = row.month.expected / DAYS_PER_MONTH / (price_per_million_tokens * service.tokens / 1e6)
    possible = row.cards * row.capacity_per_s.expected * 86400
    return requests if requests <= possible else math.inf


def even_hours_per_day(row: DeployRow, price_per_hour: float) -> float:
    """Hours a day of a rented endpoint that cost as much as these cards all day; above them, one's own are cheaper."""
    return row.month.expected / DAYS_PER_MONTH / price_per_hour


def _row(service: Service, rate: float | None, offer: Offer, precision: Precision) -> DeployRow:
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
        offer=offer, precision=precision, weights_bytes=served_bytes(service, precision), slots=slots(service, gpu, precision),
        at_once=at_once, latency_s=Estimate(latency / BAND[1], latency, latency / BAND[0]) if at_once else None,
        capacity_per_s=Estimate.around(capacity, *BAND),
        tokens_per_s=Estimate.around(capacity * (service.output_tokens or service.input_tokens), *BAND),
        single_tokens_per_s=single, cards=cards, month=month, per_1000=(load and month.scaled(1000 / load)) or None,
        per_million_tokens=(load and month.scaled(1e6 / (load * service.tokens))) or None,
        separate_month=offer.per_month().scaled(alone_cards), separate_cards=alone_cards,
    )  # fmt: skip
