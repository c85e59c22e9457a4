"""The table of a comparison: quantities in groups, one cell for each entry, for terminal, HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.cells import cell_len

from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.report.values import ComparisonValues, Entry, Forecast, Interval, Price, Serving
from tunedeck.core.i18n import say
from tunedeck.core.units import duration, duration_range, format_byte_range, format_bytes

AT_ONCE = 6
"""Entries side by side; more of them go into further tables."""
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class TableRow:
    """A quantity and its cells; `strong` marks the one that decides."""

    label: str
    cells: tuple[str, ...]
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rows about one thing."""

    title: str
    rows: tuple[TableRow, ...]


def blocks(comparison: ComparisonValues) -> list[tuple[tuple[Entry, ...], list[Group]]]:
    """Return the entries, at most AT_ONCE at a time, each with its groups of rows."""
    parts = [comparison.entries[start : start + AT_ONCE] for start in range(0, len(comparison.entries), AT_ONCE)]
    return [(part, _groups(comparison, part)) for part in parts]


def text_table(comparison: ComparisonValues) -> str:
    """Return every block as lines of aligned columns, the names of the entries first."""
    found = []
    for entries, groups in blocks(comparison):
        rows = [("", *(entry.name for entry in entries))]
        rows += [(row.label, *row.cells) for group in groups for row in group.rows]
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        for label, *cells in rows:
            numbers = [" " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths[1:], strict=True)]
            found.append("  ".join([label + " " * (widths[0] - cell_len(label)), *numbers]))
    return "\n".join(found)


def _groups(comparison: ComparisonValues, entries: Sequence[Entry]) -> list[Group]:
    """Return the groups, without the rows in which no entry has anything."""
    rows = {
        say("Quality"): _quality_rows(comparison, entries),
        say("Size"): _size_rows(entries),
        say("Training"): _training_rows(comparison.price, entries),
        say("Answering"): _serving_rows(entries),
    }
    return [
        Group(title, tuple(row for row in found if any(cell != NOTHING for cell in row.cells)))
        for title, found in rows.items()
    ]


def _row(entries: Sequence[Entry], label: str, cell: Callable[[Entry], str], strong: bool = False) -> TableRow:
    return TableRow(label, tuple(cell(entry) for entry in entries), strong)


def _quality_rows(comparison: ComparisonValues, entries: Sequence[Entry]) -> list[TableRow]:
    """Return the metric that decides with its intervals, and the metrics that differ from it."""
    metrics = [
        metric for metric in entries[0].metrics if any(e.metrics[metric] != comparison.quality(e) for e in entries)
    ]
    return [
        _row(entries, metric_name(comparison.metric), lambda entry: f"{comparison.quality(entry):.3f}", strong=True),
        _row(entries, say("95% interval"), lambda entry: _span(entry.interval)),
        _row(entries, say("behind the best"), lambda entry: _span(entry.behind)),
        *(
            TableRow(metric_name(metric), tuple(f"{entry.metrics[metric]:.3f}" for entry in entries))
            for metric in metrics
        ),
        _row(entries, say("forgetting (loss on other text)"), _forgetting),
    ]


def _size_rows(entries: Sequence[Entry]) -> list[TableRow]:
    return [
        _row(entries, say("trainable parameters"), lambda entry: f"{entry.trainable_parameters:,}"),
        _row(entries, say("% of the model"), lambda entry: f"{entry.trainable_share:.3%}"),
        _row(entries, say("on disk"), lambda entry: format_bytes(entry.disk_bytes)),
    ]


def _training_rows(price: Price | None, entries: Sequence[Entry]) -> list[TableRow]:
    found = [
        _row(entries, say("training"), lambda entry: duration(entry.train_s)),
        _row(entries, say("  as planned"), lambda entry: _planned(entry, "time")),
        _row(entries, say("  steps, stopped early"), _stopped_early),
        _row(entries, say("peak memory"), lambda entry: format_bytes(entry.peak_memory_bytes)),
        _row(entries, say("  as planned"), lambda entry: _planned(entry, "memory")),
    ]
    if price is None:
        return found
    return [
        *found,
        _row(entries, say("cost of the training time"), lambda entry: money(entry.cost, price.currency)),
        _row(entries, say("  as planned"), lambda entry: _planned(entry, "cost")),
    ]


def _serving_rows(entries: Sequence[Entry]) -> list[TableRow]:
    return [
        _row(entries, say("one text"), lambda entry: f"{entry.serving.latency_ms:.1f} ms"),
        _row(entries, say("one text, base = 1"), lambda entry: f"{entry.serving.latency_ratio:.2f}"),
        _row(entries, say("texts/s, separate"), lambda entry: f"{entry.serving.texts_per_s:,.0f}"),
        _row(entries, say("texts/s, mixed"), lambda entry: f"{entry.serving.mixed_texts_per_s:,.0f}"),
        _row(entries, say("switching to it"), lambda entry: _switch(entry.serving)),
        _row(entries, say("loading it"), lambda entry: f"{entry.serving.load_ms:.0f} ms"),
    ]


def money(amount: float | None, currency: str) -> str:
    """Return `0.12 CNY`, small amounts with two digits that count."""
    if amount is None:
        return NOTHING
    return f"{amount:,.2f} {currency}" if amount >= 0.1 or amount == 0 else f"{amount:.2g} {currency}"


def _span(interval: Interval | None) -> str:
    """Return `0.725–0.769`; a span that goes below zero is written `−0.010 … 0.012`."""
    if interval is None:
        return NOTHING
    low, high = f"{interval.low:.3f}", f"{interval.high:.3f}"
    return f"{low}–{high}" if interval.low >= 0 else f"{low} … {high}".replace("-", "−")


def _forgetting(entry: Entry) -> str:
    return NOTHING if entry.forgetting is None else f"{entry.forgetting:+.3f}".replace("-", "−")


def _switch(serving: Serving) -> str:
    """Return `+0.3 ms` where it is surely above zero."""
    return f"{serving.switch_ms:+.1f} ms" if serving.switch_interval_ms.low > 0 else say("0 (within noise)")


def _stopped_early(entry: Entry) -> str:
    """Return `640 of 1,000, saved 40 s`, means over the runs; nothing where none stopped early."""
    if all(run.stopped != "early" for run in entry.runs):
        return NOTHING
    return say(
        "{steps:,.0f} of {planned:,.0f}, saved {saved}",
        steps=fmean(run.steps for run in entry.runs),
        planned=fmean(run.planned_steps for run in entry.runs),
        saved=duration(fmean(run.saved_s for run in entry.runs)),
    )


def _planned(entry: Entry, quantity: str) -> str:
    """Return `50 (41–70) s`, marked if the actual value is outside."""
    found = next((one for one in entry.planned if one.quantity == quantity), None)
    if found is None or found.high == float("inf"):
        return NOTHING
    return _range(found) + ("" if found.inside else " !")


def _range(found: Forecast) -> str:
    if found.unit == "bytes":
        return format_byte_range(found.low, found.expected, found.high)
    if found.unit == "s":
        return duration_range(found.low, found.expected, found.high)
    return f"{found.expected:.2g} ({found.low:.2g}–{found.high:.2g}) {found.unit}"
