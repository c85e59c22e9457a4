"""The table of a comparison: quantities in groups, one cell for each entry, the same for terminal, page and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.report.result import Comparison, Entry, Forecast, Interval
from tunedeck.core.messages import say
from tunedeck.core.units import duration, duration_range, megabytes, megabytes_range

AT_ONCE = 6
"""Entries side by side; more of them go into further tables."""
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """A quantity and its cells; `strong` marks the one that decides."""

    label: str
    cells: tuple[str, ...]
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rows about one thing."""

    title: str
    rows: tuple[Row, ...]


def blocks(comparison: Comparison) -> list[tuple[tuple[Entry, ...], list[Group]]]:
    """The entries, at most AT_ONCE at a time, each with its groups of rows."""
    parts = [comparison.entries[start : start + AT_ONCE] for start in range(0, len(comparison.entries), AT_ONCE)]
    return [(part, _groups(comparison, part)) for part in parts]


def _groups(comparison: Comparison, entries: Sequence[Entry]) -> list[Group]:
    def row(label: str, cell: Callable[[Entry], str], strong: bool = False) -> Row:
        return Row(label, tuple(cell(entry) for entry in entries), strong)

    others = [
        name
        for name in entries[0].metrics
        if any(entry.metrics[name] != comparison.quality(entry) for entry in entries)
    ]
    quality = [row(metric_name(comparison.metric), lambda entry: f"{comparison.quality(entry):.3f}", strong=True)]
    quality.append(row(say("95% interval"), lambda entry: _span(entry.interval)))
    quality.append(row(say("behind the best"), lambda entry: _span(entry.behind)))
    quality += [row(metric_name(name), lambda entry, name=name: f"{entry.metrics[name]:.3f}") for name in others]  # type: ignore[misc]
    price = comparison.price
    rows = {
        say("Quality"): quality,
        say("Size"): [
            row(say("trainable parameters"), lambda entry: f"{entry.trainable_parameters:,}"),
            row(say("% of the model"), lambda entry: f"{entry.trainable_share:.3%}"),
            row(say("on disk"), lambda entry: megabytes(entry.disk_bytes)),
        ],
        say("Training"): [
            row(say("training"), lambda entry: duration(entry.train_s)),
            row(say("  as planned"), lambda entry: _planned(entry, "time")),
            row(say("peak memory"), lambda entry: megabytes(entry.peak_memory_bytes)),
            row(say("  as planned"), lambda entry: _planned(entry, "memory")),
            *([] if price is None else [
                row(say("cost of the training time"), lambda entry: money(entry.cost, price.currency)),
                row(say("  as planned"), lambda entry: _planned(entry, "cost")),
            ]),
        ],
        say("Answering"): [
            row(say("one text"), lambda entry: f"{entry.serving.latency_ms:.1f} ms"),
            row(say("one text, base = 1"), lambda entry: f"{entry.serving.latency_ratio:.2f}"),
            row(say("texts/s, own batches"), lambda entry: f"{entry.serving.texts_per_s:,.0f}"),
            row(say("texts/s, mixed batches"), lambda entry: f"{entry.serving.mixed_texts_per_s:,.0f}"),
            row(say("switching to it"), lambda entry: _signed_ms(entry.serving.switch_ms)),
            row(say("loading it"), lambda entry: f"{entry.serving.load_ms:.0f} ms"),
        ],
    }  # fmt: skip
    return [Group(title, tuple(one for one in found if any(cell != NOTHING for cell in one.cells))) for title, found in rows.items()]  # fmt: skip


def money(amount: float | None, currency: str) -> str:
    """`0.12 CNY`, small amounts with two digits that count."""
    if amount is None:
        return NOTHING
    return f"{amount:,.2f} {currency}" if amount >= 0.1 or amount == 0 else f"{amount:.2g} {currency}"


def _span(interval: Interval | None) -> str:
    """`0.725–0.769`; a span that goes below zero is written `−0.010 … 0.012`."""
    if interval is None:
        return NOTHING
    low, high = f"{interval.low:.3f}", f"{interval.high:.3f}"
    return f"{low}–{high}" if interval.low >= 0 else f"{low} … {high}".replace("-", "−")


def _signed_ms(value: float) -> str:
    """`+0.1 ms`, `−0.2 ms`; what rounds to zero has no sign."""
    return f"{value:+.1f} ms".replace("-", "−") if round(value, 1) else "0.0 ms"


def _planned(entry: Entry, quantity: str) -> str:
    """`50 (41–70) s`, marked where what happened lies outside."""
    found = next((one for one in entry.planned if one.quantity == quantity), None)
    if found is None or found.high == float("inf"):
        return NOTHING
    return _range(found) + ("" if found.inside else " !")


def _range(found: Forecast) -> str:
    if found.unit == "bytes":
        return megabytes_range(found.low, found.expected, found.high)
    if found.unit == "s":
        return duration_range(found.low, found.expected, found.high)
    return f"{found.expected:.2g} ({found.low:.2g}–{found.high:.2g}) {found.unit}"
