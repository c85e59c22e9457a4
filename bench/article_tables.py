"""The source article's two tables as `tunedeck plan` and `tunedeck deploy-cost` compute them, as Markdown.

python bench/article_tables.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunedeck.methods.registry import config_of
from tunedeck.planner.catalogue import GIB, find_gpu
from tunedeck.planner.deploy import deploy_rows
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.plan import PlanRequest, PlanRow, make_plan
from tunedeck.planner.prices import read_prices
from tunedeck.planner.serving import Service
from tunedeck.planner.workload import Workload

SAMPLES, TOKENS, EPOCHS = 10_000, 512, 3.0
"""The article names no data; this is the example of `tunedeck plan --help`."""


@dataclass(frozen=True, slots=True)
class Training:
    """A row of the article's training table."""

    model: str
    methods: tuple[str, ...]
    gpus: tuple[str, ...]
    hours: str
    cost: str


TRAININGS = (
    Training("chatglm3-6b", ("lora", "qlora"), ("a10",), "2–3", "80–150"),
    Training("qwen-7b", ("qlora",), ("p100",), "3–4", "120–200"),
    Training("bge-large-zh", ("full", "lora"), ("3090", "t4"), "< 1", "20–40"),
    Training("mistral-7b", ("qlora",), ("a100-40",), "2–3", "180–300"),
    Training("minicpm-2b", ("lora",), ("t4", "a10"), "0.7–1", "15–30"),
)
DEPLOYMENTS = (
    ("t4", "minicpm-2b", "3–5", "2200–3600"),
    ("a10", "chatglm3-6b", "8–12", "6000–9000"),
    ("a100-40", "qwen2.5-14b", "25–40", "18000+"),
    ("cpu", "bge-large-zh", "0.5–1", "400–700"),
)


def training_rows(training: Training) -> list[PlanRow]:
    """The plan's rows for one row of the article, at the article's own prices."""
    model = find_planned_model(training.model)
    methods: dict[str, Any] = {name: config_of("lora" if name == "qlora" else name, {}) for name in training.methods}
    work = Workload(SAMPLES, EPOCHS, float(TOKENS), TOKENS, 0.1, "example", counted=True)
    book = read_prices("reference")
    offers = [book.convert(offer, "CNY") for name in training.gpus for offer in book.offers_of(find_gpu(name))]
    return make_plan(PlanRequest(model=model, methods=methods, workload=work, generate=model.spec.causal), offers)


def main() -> None:
    print("| model | method | card | fits, peak GiB | hours | article | cost, CNY | article |")
    print("|---|---|---|---|---|---|---|---|")
    for training in TRAININGS:
        for row in training_rows(training):
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
    book = read_prices("reference")
    for gpu, name, hour, month in DEPLOYMENTS:
        spec = find_planned_model(name).spec
        parameters = config_of("lora", {"r": 16, "target_modules": "all-linear"}).count_parameters(spec)
        service = Service(spec, 1, parameters, 256, 128 if spec.causal else 0, None)
        row = deploy_rows(service, None, book.offers_of(find_gpu(gpu)))[0]
        full = row.month.expected / (0.7 * row.capacity_per_s.expected * 730 * 3600) * 1000
        cells = [row.offer.gpu.name, f"{name}, {row.precision}", str(row.at_once), span(row.capacity_per_s, 1)]
        cells += [span(row.offer.price_per_hour, 1), hour, span(row.month, 0), month, f"{full:.2g}, {7 * full:.2g}"]
        print("| " + " | ".join(cells) + " |")


def span(estimate: Estimate, digits: int) -> str:
    """`expected (low–high)`."""
    if estimate.low == estimate.high:
        return f"{estimate.expected:.{digits}f}"
    return f"{estimate.expected:.{digits}f} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"


if __name__ == "__main__":
    main()
