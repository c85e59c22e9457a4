"""Which labels are taken for which."""

from __future__ import annotations

from collections.abc import Sequence

from tunedeck.comparison.report.style import INK, Figure, canvas, finished, shown_names
from tunedeck.comparison.report.values import Confusion
from tunedeck.core.i18n import say

SHOWN = 12
"""Labels in the figure; with more, the ones with the most mistakes, and the rest as one."""


def counted(entry: str, labels: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Confusion:
    """Return counts of (wanted, answered) pairs, rows and columns in the order of `labels`."""
    place = {label: number for number, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for actual, predicted in pairs:
        counts[place[actual]][place[predicted]] += 1
    return Confusion(entry, tuple(labels), tuple(tuple(row) for row in counts))


def label_cells(confusion: Confusion) -> list[list[str]]:
    """Return label, precision, recall, F1 and number of held-out texts of every label, the most frequent first."""
    cells = []
    for place, label in enumerate(confusion.labels):
        right, actual = confusion.counts[place][place], sum(confusion.counts[place])
        predicted = sum(row[place] for row in confusion.counts)
        shares = (right / max(1, predicted), right / max(1, actual), 2 * right / max(1, actual + predicted))
        cells.append((actual, [label, *(f"{share:.3f}" for share in shares), f"{actual:,}"]))
    return [row for _, row in sorted(cells, key=lambda one: -one[0])]


def condensed(confusion: Confusion) -> Confusion:
    """Return at most SHOWN labels: those with the most mistakes in their order, and the sum of the others at the
    end.
    """
    size = len(confusion.labels)
    if size <= SHOWN:
        return confusion
    mistakes = [
        sum(confusion.counts[one]) + sum(row[one] for row in confusion.counts) - 2 * confusion.counts[one][one]
        for one in range(size)
    ]
    kept = sorted(sorted(range(size), key=lambda one: -mistakes[one])[: SHOWN - 1])
    groups = [*([one] for one in kept), [one for one in range(size) if one not in kept]]
    counts = tuple(
        tuple(sum(confusion.counts[a][p] for a in actual for p in predicted) for predicted in groups)
        for actual in groups
    )
    labels = (*(confusion.labels[one] for one in kept), say("{count} others", count=len(groups[-1])))
    return Confusion(confusion.entry, labels, counts)


def confusion_figure(confusion: Confusion) -> Figure:
    """Counts in cells, shaded by their share of the row: what becomes of the texts that truly have a label."""
    shown = condensed(confusion)
    names, key = shown_names(shown.labels)
    size = len(names)
    shares = [[count / max(1, sum(row)) for count in row] for row in shown.counts]
    side = 2.0 + 0.52 * size
    with canvas(side + 0.9, side) as (drawing, axes):
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
        for row in range(size):
            for column in range(size):
                ink = "white" if shares[row][column] > 0.55 else INK
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{shown.counts[row][column]:,}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=9.5,
                )
        middle = [number + 0.5 for number in range(size)]
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 6 else {}
        axes.set_xticks(middle, names, **turned)
        axes.set_yticks(middle, names)
        axes.set(xlabel=say("predicted"), ylabel=say("true"), aspect="equal")
        axes.invert_yaxis()
        axes.grid(False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        right = sum(confusion.counts[one][one] for one in range(len(confusion.labels)))
        total = sum(map(sum, confusion.counts))
        return finished(drawing, "confusions", say("{right} of {total} are right", right=right, total=total), key)
