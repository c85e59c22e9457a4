"""The figure of cost against load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunedeck.core.errors import ConfigError, StorageError
from tunedeck.core.i18n import say
from tunedeck.planner.deploy import DeployRow, cost_per_1000
from tunedeck.planner.serving import PlannedService

LINES = 5
POINTS = 240


def draw(path: Path, rows: Sequence[DeployRow], service: PlannedService, token_price: float | None, title: str) -> None:
    """Cost per 1,000 requests against requests per second, both on logarithmic axes, for the cheapest offers that fit.

    A price per million tokens is a level line; where a curve falls below it, your GPUs are cheaper. Labels are
    English, which every font has. Raises ConfigError when nothing fits.
    """
    shown = _cheapest([row for row in rows if row.fits])
    if not shown:
        raise ConfigError(say("there is no figure to draw: no GPU holds this model within the latency target"))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = 3 * max(row.capacity_per_s.expected for row in shown)
    loads = [most * 10 ** (-4.5 * (1 - step / (POINTS - 1))) for step in range(POINTS)]
    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    for row in shown:
        label = (
            f"{row.offer.gpu.name}, {row.precision}, {row.offer.per_month().expected:,.0f} {row.offer.currency}/month"
        )
        axes.plot(loads, [cost_per_1000(row, load) for load in loads], label=label, linewidth=1.6)
    if token_price is not None:
        level = token_price * service.tokens / 1000
        axes.axhline(
            level, color="black", linestyle="--", linewidth=1.2, label=f"paid per token, {token_price:g} per million"
        )
    axes.set(xscale="log", yscale="log", xlabel="requests per second, all day", title=title)
    axes.set_ylabel(f"{shown[0].offer.currency} per 1,000 requests")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    _save(path, figure)
    pyplot.close(figure)


def _save(path: Path, figure: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise StorageError(say("cannot write the figure {path}: {reason}", path=path, reason=error)) from error


def _cheapest(rows: Sequence[DeployRow]) -> list[DeployRow]:
    """Return LINES GPUs: those with the lowest month, which win at low loads, and those with the lowest cost when
    full.
    """
    by_month = sorted(rows, key=lambda row: (row.offer.per_month().expected, -row.capacity_per_s.expected))
    by_load = sorted(rows, key=lambda row: row.offer.per_month().expected / row.capacity_per_s.expected)
    best: dict[str, DeployRow] = {}
    for pair in zip(by_month, by_load, strict=True):
        for row in pair:
            if len(best) < LINES:
                best.setdefault(row.offer.gpu.name, row)
    return list(best.values())
