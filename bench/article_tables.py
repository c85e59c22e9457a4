"""The source article's two tables as `tunedeck plan` and `tunedeck deploy-cost` compute them, as Markdown.

python bench/article_tables.py
"""

from __future__ import annotations

from tunedeck.planner.article_tables import DEPLOYMENTS, TRAININGS, deployment_row, training_rows
from tunedeck.planner.catalogue import GIB
from tunedeck.planner.estimate import Estimate

SAMPLES, TOKENS, EPOCHS = 10_000, 512, 3.0
"""The article names no data; this is the example of `tunedeck plan --help`."""


def main() -> None:
    print("| model | method | card | fits, peak GiB | hours | article | cost, CNY | article |")
    print("|---|---|---|---|---|---|---|---|")
    for training in TRAININGS:
        for row in training_rows(training, SAMPLES, TOKENS, EPOCHS):
            cells = [row.model, row.method, row.offer.gpu.name]
            cells += [f"{'yes' if row.fits else 'no'}, {row.peak_device_bytes.expected / GIB:.1f}"]
            cells += [span(row.hours.total_h, 1) if row.fits else "-", training.hours]
            cells += [span(row.cost, 0) if row.fits else "-", training.cost]
            print("| " + " | ".join(cells) + " |")
    print(
        "\n| card | model | at once | requests/s | CNY/hour | article | CNY/month | article | CNY per 1000 "
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
