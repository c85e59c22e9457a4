"""The words and numbers in which a plan is shown, in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from tunedeck.core.i18n import say
from tunedeck.planner.catalogue import GIB
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.plan import PlanRow
from tunedeck.planner.prices import Offer


def note_text(note: str) -> str:
    """Return the sentence behind a note's short name."""
    return {
        "float16-instead-of-bfloat16": say("no native bfloat16, counted in float16"),
        "no-flash-attention": say("no FlashAttention-2 (Ampere and later), counted with sdpa"),
        "no-tensor-cores": say("no tensor cores, counted at its plain 16-bit rate"),
        "four-bit-unsupported": say(
            "4-bit kernels need compute capability 7.0; current engines no longer support this GPU"
        ),
        "doubtful-figures": say("sources disagree about this GPU's arithmetic (gpus.toml)"),
        "not-calibrated": say("this model and method were not measured here; tighter with: tunedeck plan --calibrate"),
    }[note]


def gib(count: float) -> str:
    """Return bytes in GiB with three digits."""
    return f"{count / GIB:.1f} GiB" if count < 100 * GIB else f"{count / GIB:.0f} GiB"


def spread(estimate: Estimate, unit: str = "") -> str:
    """Return `3.1 (2.5-4.0)`, or one number where it is exact."""
    if estimate.low == estimate.high:
        return f"{number_text(estimate.expected)}{unit}"
    return f"{number_text(estimate.expected)}{unit} ({number_text(estimate.low)}-{number_text(estimate.high)})"


def number_text(value: float) -> str:
    """Return a number with the digits that an estimate deserves: `0.25`, `2.5`, `25`, `2,500`."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def price_text(offer: Offer) -> str:
    """Return an offer's price with what kind of price it is."""
    kinds = {
        "on-demand": say("on demand"),
        "spot": say("spot"),
        "community": say("community"),
        "floor": say("cheapest listing"),
        "list": say("list price"),
        "own": say("your price"),
    }
    return f"{spread(offer.price_per_hour)} {kinds[offer.billing]}"


def beyond_limits_text(rows: Sequence[PlanRow]) -> str:
    """Return the cheapest and the fastest of the rows that fit, none of which is within the user's limits."""
    cheapest = min((row for row in rows if row.fits), key=lambda row: row.cost.expected)
    fastest = min((row for row in rows if row.fits), key=lambda row: row.hours.total_h.expected)
    return say(
        "nothing that fits is within your limits; the cheapest is {method} on {gpu} for {cost} {currency}, the "
        "fastest {fast} on {fast_gpu} in {hours} h",
        method=cheapest.method,
        gpu=cheapest.offer.gpu.name,
        cost=number_text(cheapest.cost.expected),
        currency=cheapest.offer.currency,
        fast=fastest.method,
        fast_gpu=fastest.offer.gpu.name,
        hours=number_text(fastest.hours.total_h.expected),
    )
