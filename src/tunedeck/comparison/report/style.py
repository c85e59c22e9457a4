"""How every figure looks, and how it becomes PNG and SVG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunedeck.comparison.report.fonts import available_fonts

# Okabe and Ito's colours, told apart with any kind of colour vision; their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
INK, PALE = "#1f2933", "#d5dae0"
_STYLE = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8ebee",
    "axes.axisbelow": True,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "svg.hashsalt": "tunedeck",
    "svg.fonttype": "path",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A finished figure; `alt` says in words what it shows, `key` explains labels that could only be numbered."""

    name: str
    alt: str
    png: bytes
    svg: bytes
    key: tuple[str, ...] = ()


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, in inches, drawn without a display and closed afterwards."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    with matplotlib.rc_context({**_STYLE, "font.family": list(available_fonts().families)}):
        drawing = Drawing(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing, drawing.subplots()


def finished(drawing: Any, name: str, alt: str, key: tuple[str, ...] = ()) -> Figure:
    """Return the drawing as PNG (200 dots per inch) and SVG, the same bytes for the same drawing."""
    png, svg = io.BytesIO(), io.BytesIO()
    drawing.savefig(png, format="png", dpi=200, metadata={"Software": None})
    drawing.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(name, alt, png.getvalue(), svg.getvalue(), key)


def colour(number: int) -> str:
    """Return the colour of the entry of that number, the same in every figure."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Return the marker of the entry of that number; a new one once the colours have been used up."""
    return MARKERS[(number // len(COLOURS) + number) % len(MARKERS)]


def shown_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names as a figure can show them, and the key of those that became numbers."""
    letters = available_fonts()
    shown = tuple(_shortened(name) if letters.covers(name) else f"#{number}" for number, name in enumerate(names, 1))
    return shown, tuple(
        f"{short} = {name}" for short, name in zip(shown, names, strict=True) if short.startswith("#") and short != name
    )


def _shortened(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
