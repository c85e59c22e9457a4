"""How often answers are right, by the probability that they were given with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunedeck.comparison.report.style import PALE, Figure, canvas, colour, finished, shown_names
from tunedeck.core.i18n import say
from tunedeck.core.reliability import Reliability, TemperatureScaling

_LARGEST = 9.0


def reliability_figure(found: Mapping[str, TemperatureScaling]) -> Figure:
    """Draw each adapter's share of right answers over their probability: dashed without its temperature, solid with
    it; the area of a point is the number of answers.
    """
    names, key = shown_names(tuple(found))
    with canvas(4.6, 4.4) as (drawing, axes):
        axes.plot([0, 1], [0, 1], color=PALE, linewidth=1.5)
        for number, (name, scaling) in enumerate(zip(names, found.values(), strict=True)):
            before = say("{name} before, error {error:.3f}", name=name, error=scaling.before.ece)
            after = say("{name} after, error {error:.3f}", name=name, error=scaling.after.ece)
            _line(axes, scaling.before, number, before, "--", "none")
            _line(axes, scaling.after, number, after, "-", colour(number))
        axes.set(xlabel=say("probability"), ylabel=say("share of right answers"), xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(loc="upper left", fontsize=8.5)
        errors = [
            say(
                "{name}: expected calibration error {before:.3f} before, {after:.3f} after",
                name=name,
                before=scaling.before.ece,
                after=scaling.after.ece,
            )
            for name, scaling in found.items()
        ]
        return finished(drawing, "reliability", "; ".join(errors), key)


def _line(axes: Any, found: Reliability, number: int, label: str, style: str, face: str) -> None:
    across, up = [one.confidence for one in found.bins], [one.accuracy for one in found.bins]
    most = max(one.count for one in found.bins)
    axes.plot(across, up, style, color=colour(number), linewidth=1.3, label=label)
    sizes = [4 + _LARGEST**2 * one.count / most for one in found.bins]
    axes.scatter(across, up, s=sizes, facecolors=face, edgecolors=colour(number), linewidths=1.2)
