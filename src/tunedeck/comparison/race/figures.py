"""The figures of a race: each candidate a line over its cost, and quality against cost with the Pareto front."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from tunedeck.comparison.race.values import Raced, RaceValues
from tunedeck.comparison.race.words import ranked, status_name
from tunedeck.comparison.report.figures import front, logarithmic
from tunedeck.comparison.report.fonts import available_fonts
from tunedeck.comparison.report.label_placement import place_labels
from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.report.style import INK, Figure, canvas, colour, finished, marker, shown_names
from tunedeck.core.i18n import say, set_language
from tunedeck.core.units import duration

GREY = "#b4bcc4"
ENDS = {"worse": "x", "paused": "|", "failed": "v", "not best": "o"}
"""Markers at the end of a stopped candidate's line."""
_WIDTH, _HEIGHT = 7.6, 4.6


def draw_figures(race: RaceValues) -> list[Figure]:
    """Return the figures, their words in a language that this system has letters for."""

    def drawn() -> list[Figure]:
        set_language(available_fonts().language)
        return [_lines(race), _front(race)]

    return copy_context().run(drawn)


def _cost(race: RaceValues, seconds: float) -> float:
    return seconds if race.price is None else race.price.per_hour * seconds / 3600


def _unit(race: RaceValues, value: float) -> str:
    return duration(value) if race.price is None else f"{value:.2g}"


def _short(one: Raced) -> str:
    """Return a name whose learning rate is not cut off."""
    return one.name.replace("learning_rate=", "lr=")


def _across(race: RaceValues) -> str:
    if race.price is None:
        return say("time spent on the candidate")
    return say("cost of the candidate, {currency}", currency=race.price.currency)


def _lines(race: RaceValues) -> Figure:
    """Draw the race: those that went to the end coloured, stopped ones grey with a marker for the reason."""
    shown = [one for one in ranked(race) if one.points]
    front_runners = [one for one in shown if one.status in ("winner", "not best")][:7]
    names, key = shown_names(tuple(_short(one) for one in front_runners))
    with canvas(_WIDTH, _HEIGHT) as (drawing, axes):
        labelled: set[str] = set()
        for one in shown:
            if one not in front_runners:
                _stopped(race, axes, one, one.status not in labelled)
                labelled.add(one.status)
        for number, one in enumerate(front_runners):
            xs, ys = [_cost(race, point.seconds) for point in one.points], [point.quality for point in one.points]
            width, label = 2.4 if one.status == "winner" else 1.5, names[number]
            style = {"marker": marker(number), "markersize": 6, "markeredgecolor": "white", "zorder": 3}
            axes.plot(xs, ys, color=colour(number), linewidth=width, label=label, **style)
        floor = next(base.quality for base in race.bases if base.chosen)
        if floor is not None:
            axes.axhline(floor, color=INK, linewidth=0.9, linestyle=(0, (1, 3)), label=say("head on the frozen base"))
        logarithmic(axes, [_cost(race, p.seconds) for one in shown for p in one.points], lambda v: _unit(race, v))
        axes.set(xlabel=_across(race), ylabel=metric_name(race.metric))
        drawing.legend(loc="outside upper left", ncols=3, fontsize=8.5, handlelength=1.6, columnspacing=1.4)
        alt = "; ".join(f"{one.name}: {one.points[-1].quality:.3f}" for one in shown)
        return finished(drawing, "race", alt, key)


def _stopped(race: RaceValues, axes: Any, one: Raced, labelled: bool) -> None:
    xs, ys = [_cost(race, point.seconds) for point in one.points], [point.quality for point in one.points]
    axes.plot(xs, ys, color=GREY, linewidth=1.1, zorder=1)
    label = status_name(one.status) if labelled else None
    mark = ENDS.get(one.status, "o")
    axes.plot(xs[-1:], ys[-1:], mark, color="#7b8794", markersize=6, linestyle="none", zorder=2, label=label)


def _front(race: RaceValues) -> Figure:
    """Draw each candidate's last quality against what was spent on it, and the Pareto front."""
    shown = [one for one in ranked(race) if one.points]
    points = [(_cost(race, one.seconds), one.points[-1].quality) for one in shown]
    best = front(points, race.higher_is_better)
    names, key = shown_names(tuple(_short(shown[number]) for number in best))
    with canvas(_WIDTH, _HEIGHT) as (drawing, axes):
        others = [point for number, point in enumerate(points) if number not in best]
        axes.plot([x for x, _ in others], [y for _, y in others], "o", color=GREY, markersize=6, linestyle="none")
        corners = [points[number] for number in best]
        dashes = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1}
        axes.step(*zip(*corners, strict=True), where="post", label=say("Pareto front"), **dashes)
        for number, point in enumerate(corners):
            axes.plot(*point, marker(number), color=colour(number), markersize=8, markeredgecolor="white", zorder=3)
        logarithmic(axes, [x for x, _ in points], lambda value: _unit(race, value))
        axes.set(xlabel=_across(race), ylabel=metric_name(race.metric))
        axes.margins(y=0.16)
        if len(best) > 1:
            axes.legend(loc="lower right" if race.higher_is_better else "upper right", fontsize=8.5)
        place_labels(drawing, axes, corners, names)
        alt = "; ".join(f"{one.name}: {_unit(race, x)}, {y:.3f}" for one, (x, y) in zip(shown, points, strict=True))
        return finished(drawing, "quality-cost", alt, key)
