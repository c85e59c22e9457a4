"""The figures of a comparison: quality against size and against cost, learning curves, confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from tunedeck.comparison.report.confusion import confusion_figure
from tunedeck.comparison.report.fonts import available_fonts
from tunedeck.comparison.report.label_placement import place_labels
from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.report.reliability import reliability_figure
from tunedeck.comparison.report.style import INK, Figure, canvas, colour, finished, marker, shown_names
from tunedeck.comparison.report.values import ComparisonValues, Entry
from tunedeck.core.i18n import say, set_language
from tunedeck.core.units import duration, format_bytes

_WIDTH, _HEIGHT = 5.6, 3.7


def draw_figures(comparison: ComparisonValues) -> list[Figure]:
    """Return every figure that the comparison has something for, its words in a language that this system has letters
    for.
    """

    def drawn() -> list[Figure]:
        set_language(available_fonts().language)
        found = [_size(comparison), _cost(comparison)]
        if any(entry.losses for entry in comparison.entries):  # head-only runs take no step
            found.append(_losses(comparison))
        found.append(_evaluations(comparison))
        if comparison.scaling is not None:
            found.append(reliability_figure({comparison.best.name: comparison.scaling}))
        return found + ([] if comparison.confusion is None else [confusion_figure(comparison.confusion)])

    return copy_context().run(drawn)


def _size(comparison: ComparisonValues) -> Figure:
    return _scatter(
        comparison,
        "quality-size",
        say("on disk"),
        lambda entry: entry.disk_bytes,
        format_bytes,
    )


def _cost(comparison: ComparisonValues) -> Figure:
    price = comparison.price
    if price is not None:
        return _scatter(
            comparison,
            "quality-cost",
            say("cost of the training time, {currency}", currency=price.currency),
            lambda entry: entry.cost or 0.0,
            lambda value: f"{value:.3g}",
        )
    return _scatter(
        comparison,
        "quality-time",
        say("training time"),
        lambda entry: entry.train_s,
        duration,
    )


def _scatter(
    comparison: ComparisonValues, name: str, across: str, value: Callable[[Entry], float], unit: Callable[[float], str]
) -> Figure:
    """Return quality against something that less of is better, on a logarithmic axis, with intervals and the front."""
    entries = comparison.entries
    points = [(value(entry), comparison.quality(entry)) for entry in entries]
    best = front(points, comparison.higher_is_better)
    names, key = shown_names(tuple(entry.name for entry in entries))
    with canvas(_WIDTH, _HEIGHT) as (drawing, axes):
        for number, (point, entry) in enumerate(zip(points, entries, strict=True)):
            _bar(axes, point, entry, colour(number))
        corners = [points[number] for number in best]
        axes.step(
            *zip(*corners, strict=True),
            where="post",
            color=INK,
            linewidth=1,
            linestyle=(0, (4, 3)),
            zorder=1,
            label=say("Pareto front"),
        )
        for number, point in enumerate(points):
            axes.plot(*point, marker(number), color=colour(number), markersize=8, markeredgecolor="white", zorder=3)
        logarithmic(axes, [x for x, _ in points], unit)
        axes.set(xlabel=across, ylabel=metric_name(comparison.metric))
        axes.margins(y=0.16)
        if len(best) > 1:
            axes.legend(loc="lower right" if comparison.higher_is_better else "upper right", fontsize=8.5)
        place_labels(drawing, axes, points, names)
        alt = "; ".join(f"{entry.name}: {unit(x)}, {y:.3f}" for entry, (x, y) in zip(entries, points, strict=True))
        return finished(drawing, name, alt, key)


def _bar(axes: Any, point: tuple[float, float], entry: Entry, shade: str) -> None:
    """The interval as an upright line."""
    if entry.interval is not None:
        ends = [entry.interval.low, entry.interval.high]
        axes.plot([point[0], point[0]], ends, color=shade, linewidth=1.4, alpha=0.55, zorder=2)


def logarithmic(axes: Any, values: Sequence[float], unit: Callable[[float], str]) -> None:
    """Give axes a logarithmic scale with room for names at both ends and a few marks in people's units."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    low, high = max(min(values), 1e-9), max(max(values), 1e-9)
    room = max(1.6, (high / low) ** 0.18)
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room * 1.25)
    wide = high / low > 200
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(lambda value, _: unit(value).replace(".0 ", " "))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _losses(comparison: ComparisonValues) -> Figure:
    lines = [_smooth(entry.losses) for entry in comparison.entries]
    return _curves(comparison, "training-loss", say("loss, smoothed"), lines, dots=False)


def _evaluations(comparison: ComparisonValues) -> Figure:
    lines = [entry.evaluations for entry in comparison.entries]
    across = metric_name(comparison.metric)
    return _curves(comparison, "held-out", across, lines, dots=True)


def _curves(
    comparison: ComparisonValues, name: str, upward: str, lines: Sequence[Sequence[tuple[float, float]]], dots: bool
) -> Figure:
    names, key = shown_names(tuple(entry.name for entry in comparison.entries))
    with canvas(_WIDTH, _HEIGHT) as (drawing, axes):
        for number, line in enumerate(lines):
            axes.plot(
                [across for across, _ in line],
                [up for _, up in line],
                color=colour(number),
                marker=marker(number) if dots else None,
                markersize=6,
                markeredgecolor="white",
                linewidth=1.7,
                linestyle="-" if number < 7 else "--",
                label=names[number],
            )
        axes.set(xlabel=say("examples seen"), ylabel=upward)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlim(left=0)
        in_one_line = sum(map(len, names)) + 5 * len(names) < 66
        drawing.legend(
            loc="outside upper left",
            ncols=len(names) if in_one_line else 3,
            fontsize=9,
            handlelength=1.6,
            columnspacing=1.4,
        )
        alt = "; ".join(
            f"{entry.name}: {line[-1][1]:.3f}" for entry, line in zip(comparison.entries, lines, strict=True) if line
        )
        return finished(drawing, name, alt, key)


def _smooth(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a running mean over a tenth of the run, at least one step."""
    width = max(1, len(line) // 10)
    means = []
    for end in range(1, len(line) + 1):
        window = line[max(0, end - width) : end]
        means.append((line[end - 1][0], sum(loss for _, loss in window) / len(window)))
    return means


def front(points: Sequence[tuple[float, float]], higher_is_better: bool = True) -> list[int]:
    """Return the Pareto front: numbers of the points (cost, quality) that no other equals in one and beats in the
    other, by rising cost.

    Less cost is better. Of points that are equal in both, the first is kept.
    """
    sign = 1 if higher_is_better else -1
    best = float("-inf")
    found = []
    for number in sorted(range(len(points)), key=lambda number: (points[number][0], -sign * points[number][1], number)):
        if sign * points[number][1] > best:
            found.append(number)
            best = sign * points[number][1]
    return found
