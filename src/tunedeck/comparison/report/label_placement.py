"""Place the labels of points so that they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

# (points to the right, points up, horizontal, vertical alignment), the better places first.
_PLACES = (
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (8, 8, "left", "bottom"),
    (8, -8, "left", "top"),
    (-8, 8, "right", "bottom"),
    (-8, -8, "right", "top"),
    (12, 20, "left", "bottom"),
    (12, -20, "left", "top"),
    (-12, 20, "right", "bottom"),
    (-12, -20, "right", "top"),
    (12, 34, "left", "bottom"),
    (12, -34, "left", "top"),
)
_ARROW = {"arrowstyle": "-", "color": "#8a94a0", "linewidth": 0.6, "shrinkB": 4}


def place_labels(drawing: Any, axes: Any, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write `names` next to `points` (data coordinates) inside the axes, off each other, points, lines and the legend.

    Where every place covers something, the one that covers least is used.
    """
    from matplotlib.transforms import Bbox

    drawing.canvas.draw()
    renderer = drawing.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    marks = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform(points)]
    legend = axes.get_legend()
    used = [*marks, *_line_boxes(axes), *([legend.get_window_extent(renderer)] if legend else [])]
    for point, name in zip(points, names, strict=True):
        tried: list[tuple[float, int, Any, Any]] = []
        for right, up, horizontal, vertical in _PLACES:
            text = axes.annotate(
                name,
                point,
                (right, up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=9.5,
                arrowprops=_ARROW if abs(up) > 9 else None,
            )
            text.set_in_layout(False)
            box = text.get_window_extent(renderer)
            outside = box.width * box.height - _common(box, frame)
            tried.append((sum(_common(box, other) for other in used) + 3 * outside, len(tried), text, box))
        least = min(tried)
        for *_, text, _box in tried:
            if text is not least[2]:
                text.remove()
        used.append(least[3])


def _line_boxes(axes: Any) -> list[Any]:
    """Return a thin box around every upright or level piece of the lines in the axes."""
    from matplotlib.transforms import Bbox

    boxes = []
    for line in axes.lines:
        corners = line.get_transform().transform_path(line.get_path()).vertices
        for (x0, y0), (x1, y1) in pairwise(corners):
            boxes.append(Bbox.from_extents(min(x0, x1) - 3, min(y0, y1) - 3, max(x0, x1) + 3, max(y0, y1) + 3))
    return boxes


def _common(left: Any, right: Any) -> float:
    """Return area that two boxes share."""
    width = min(left.x1, right.x1) - max(left.x0, right.x0)
    height = min(left.y1, right.y1) - max(left.y0, right.y0)
    return float(max(0.0, width) * max(0.0, height))
