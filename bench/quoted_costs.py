"""Commonly quoted costs beside what `tunedeck plan` and `tunedeck deploy-cost` compute: the two tables of docs/plan.md.

python bench/quoted_costs.py
"""

from __future__ import annotations

from tunedeck.planner.catalogue import GIB
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.quoted_costs import DEPLOYMENTS, TRAININGS, deployment_row, training_rows

SAMPLES, TOKENS, EPOCHS = 10_000, 512, 3.0
"""No amount of data is quoted; this is the example of `tunedeck plan --help`."""


def main() -> None:
    print("| model | method | GPU | fits, peak GiB | hours | quoted | cost, CNY | quoted |")
    print("|---|---|---|---|---|---|---|---|")
    for training in TRAININGS:
        for row in training_rows(training, SAMPLES, TOKENS, EPOCHS):
            cells = [row.model, row.method, row.offer.gpu.name]
            cells += [f"{'yes' if row.fits else 'no'}, {row.peak_device_bytes.expected / GIB:.1f}"]
            cells += [span(row.hours.total_h, 1) if row.fits else "-", training.hours]
            cells += [span(row.cost, 0) if row.fits else "-", training.cost]
            print("| " + " | ".join(cells) + " |")
    print(
        "\n| GPU | model | at once | requests/s | CNY/hour | quoted | CNY/month | quoted | CNY per 1000 "
        "requests, full and at a tenth |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for example in DEPLOYMENTS:
        row = deployment_row(example, None, 256, 128)
        full = row.month.expected / (0.7 * row.capacity_per_s.expected * 730 * 3600) * 1000
        cells = [row.offer.gpu.name, f"{example.model}, {row.precision}", str(row.at_once), span(row.capacity_per_s, 1)]
        cells += [
            span(row.offer.price_per_hour, 1),
            example.per_hour,
            span(row.month, 0),
            example.per_month,
            f"{full:.2g}, {7 * full:.2g}",
        ]
        print("| " + " | ".join(cells) + " |")


def span(estimate: Estimate, digits: int) -> str:
    """`expected (low–high)`."""
    if estimate.low == estimate.high:
        return f"{estimate.expected:.{digits}f}"
    return f"{estimate.expected:.{digits}f} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"


if __name__ == "__main__":
    main()
