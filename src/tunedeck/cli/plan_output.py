"""How a plan is shown: the table, what to know about it, the recommendation."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Sequence

from tunedeck.cli.console import print_table, tell
from tunedeck.core.i18n import listing, say
from tunedeck.planner.advice import reason_text
from tunedeck.planner.catalogue import GIB
from tunedeck.planner.machine import THIS_MACHINE
from tunedeck.planner.memory import MemoryParts
from tunedeck.planner.plan import PlanRequest, PlanRow
from tunedeck.planner.planning import Plan
from tunedeck.planner.prices import Offer, PriceBook
from tunedeck.planner.words import beyond_limits_text, gib, note_text, number_text, price_text, spread

SHOWN_ROWS = 14
WIDE = 120  # columns of a terminal that has room for everything


def show(plan: Plan, everything: bool) -> None:
    """Print the plan for people."""
    request, rows = plan.request, plan.rows
    shown = list(rows if everything else _worth_showing(rows))
    currency = plan.offers[0].currency if plan.offers else ""
    wide = is_wide()
    print_table(_title(request), _columns(currency, wide), [_cells(row, wide) for row in shown], numbers_from=2)
    if len(shown) < len(rows):
        tell(say("{count} more rows: --all", count=len(rows) - len(shown)))
    left_out = [name for name in request.methods if all(row.method != name for row in rows)]
    if left_out:
        tell(
            say("not supported on {model}, left out: {methods}", model=request.model.name, methods=", ".join(left_out))
        )
    for note in dict.fromkeys(note for row in shown for note in row.notes):
        cards = dict.fromkeys(row.offer.gpu.name for row in shown if note in row.notes)
        tell(say("note: {text}", text=say("{name}: {value}", name=listing(cards), value=note_text(note))))
    if not request.workload.counted:
        tell(
            say("note: {text}", text=say("lengths are estimated from characters; the model's tokenizer is not at hand"))
        )
    rented = [row.offer for row in shown if row.offer.gpu.name != THIS_MACHINE]
    tell_stale(rented)
    _tell_rates(rented, plan.prices, currency)
    _tell_recommendation(plan)


def is_wide() -> bool:
    """Tell whether the terminal has room for every column."""
    return shutil.get_terminal_size().columns >= WIDE


def parts_text(parts: MemoryParts) -> str:
    """Return the parts of a peak that count, the largest first."""
    names = {
        "weights": say("weights"),
        "trainable": say("trained weights"),
        "gradients": say("gradients"),
        "optimizer": say("optimizer"),
        "activations": say("activations"),
        "logits": say("logits"),
        "context": say("libraries and context"),
        "fragmentation": say("fragmentation"),
    }
    found = sorted(parts.to_json().items(), key=lambda item: -item[1])
    return ", ".join(f"{names[name]} {gib(value)}" for name, value in found if value >= 0.01 * parts.device)


def _title(request: PlanRequest) -> str:
    work = request.workload
    return say(
        "{model}, {parameters:.2f} B parameters: {samples:,} examples, {mean:.0f} tokens each ({longest} the "
        "longest), {epochs:g} epochs",
        model=request.model.name,
        parameters=request.model.parameters / 1e9,
        samples=work.samples,
        mean=work.mean_tokens,
        longest=work.longest_tokens,
        epochs=round(work.epochs, 1),
    )


def _columns(currency: str, wide: bool) -> list[str]:
    found = [say("method"), say("GPU"), say("fits, GiB free"), say("peak GiB"), say("batch")]
    found += [say("tokens/s")] if wide else []
    found += [say("hours"), say("cost, {currency}", currency=currency)]
    return found + ([say("per hour")] if wide else [])


def _cells(row: PlanRow, wide: bool) -> list[str]:
    setup = row.setup
    fit = say("yes") if row.fits and row.within else (say("over") if row.fits else say("no"))
    cells = [row.method, row.offer.gpu.name, f"{fit} {row.margin_bytes / GIB:+.1f}"]
    cells += [number_text(row.peak_device_bytes.expected / GIB), f"{setup.micro_batch}x{setup.accumulation}"]
    if not row.fits:
        return cells + ["-"] * (4 if wide else 2)
    hours = row.hours.total_h
    cells += [spread(row.tokens_per_s), spread(hours)] if wide else [number_text(hours.expected)]
    return [*cells, spread(row.cost) if row.cost.high else "-", *([price_text(row.offer)] if wide else [])]


def _worth_showing(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Return the best offer of each method and GPU that fits; if nothing fits, the closest rows."""
    best = {(row.method, row.offer.gpu.name): row for row in reversed(rows)}
    fitting = [row for row in rows if row.fits and best[row.method, row.offer.gpu.name] is row]
    own = [row for row in rows if row.offer.gpu.name == THIS_MACHINE and row not in fitting]
    first = [
        next(row for row in fitting if row.method == name) for name in dict.fromkeys(row.method for row in fitting)
    ]
    kept = {id(row) for row in (*first, *fitting[:SHOWN_ROWS])}
    return [row for row in fitting if id(row) in kept] + own or list(rows[:SHOWN_ROWS])


def tell_stale(offers: Sequence[Offer]) -> None:
    """Flag prices that are old or undated."""
    today = datetime.date.today()
    old = [offer for offer in dict.fromkeys(offers) if offer.is_stale(today) and offer.gpu.name != THIS_MACHINE]
    if old:
        named = ", ".join(f"{offer.gpu.name} ({offer.date or say('undated')})" for offer in old)
        tell(say("note: {text}", text=say("prices older than 90 days or undated, check them: {offers}", offers=named)))


def _tell_rates(offers: Sequence[Offer], book: PriceBook, currency: str) -> None:
    """Print the exchange rates that prices were converted with."""
    quoted = {original.currency for offer in offers for original in book.offers_of(offer.gpu)} - {currency}
    for (source, target), value in book.rates.items():
        if {source, target} == {currency, *(quoted & {source, target})}:
            where = book.rate_sources[source, target]
            text = (
                say("1 {source} = {value:g} {target}: {where}", source=source, target=target, value=value, where=where)
                if where
                else say(
                    "1 {source} = {value:g} {target} is an assumption; give today's rate with --exchange-rate "
                    "{source}=VALUE",
                    source=source,
                    target=target,
                    value=value,
                )
            )
            tell(say("note: {text}", text=text))


def _tell_recommendation(plan: Plan) -> None:
    chosen, rows = plan.recommendation, plan.rows
    if chosen is not None:
        row = chosen.row
        tell(
            say(
                "use {method} on {gpu}: {reason}",
                method=row.method,
                gpu=row.offer.gpu.name,
                reason=reason_text(chosen),
            )
            + say(". Its memory: {parts}", parts=parts_text(row.parts))
        )
        return
    if any(row.fits for row in rows):
        tell(beyond_limits_text(rows))
        return
    tell(say("nothing fits. What would:"))
    found = plan.changes()
    for change in found:
        on_card = say("on {gpu}: {flags}", gpu=change.gpu.name, flags=change.flags)
        tell("  " + (change.flags if change.flags.startswith("--gpu") else on_card))
    if not found:
        tell("  " + say("no single change does; take a smaller model"))
