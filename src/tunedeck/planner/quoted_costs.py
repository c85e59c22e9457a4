"""Costs of training and deployment that introductions to fine-tuning quote (docs/plan.md), to set beside plans."""

from __future__ import annotations

from dataclasses import dataclass

from tunedeck.planner.deploy import DeployRow, deploy_cost
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.plan import PlanRow
from tunedeck.planner.planning import plan

PRICES = "reference"
"""The price list with the quoted prices per hour."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A quoted cost of training; `cost` is in CNY, and no amount of data is quoted with it."""

    model: str
    methods: tuple[str, ...]
    gpus: tuple[str, ...]
    hours: str
    cost: str


@dataclass(frozen=True, slots=True)
class DeploymentExample:
    """A quoted cost of a server, in CNY, with a model of the size that is quoted for it."""

    gpu: str
    model: str
    per_hour: str
    per_month: str


TRAININGS = (
    TrainingExample("chatglm3-6b", ("lora", "qlora"), ("a10",), "2–3", "80–150"),
    TrainingExample("qwen-7b", ("qlora",), ("p100",), "3–4", "120–200"),
    TrainingExample("bge-large-zh", ("full", "lora"), ("3090", "t4"), "< 1", "20–40"),
    TrainingExample("mistral-7b", ("qlora",), ("a100-40",), "2–3", "180–300"),
    TrainingExample("minicpm-2b", ("lora",), ("t4", "a10"), "0.7–1", "15–30"),
)
DEPLOYMENTS = (
    DeploymentExample("t4", "minicpm-2b", "3–5", "2200–3600"),
    DeploymentExample("a10", "chatglm3-6b", "8–12", "6000–9000"),
    DeploymentExample("a100-40", "qwen2.5-14b", "25–40", "18000+"),
    DeploymentExample("cpu", "bge-large-zh", "0.5–1", "400–700"),
)


def training_rows(example: TrainingExample, samples: int, tokens: int, epochs: float | None) -> tuple[PlanRow, ...]:
    """Return the plan's rows at the quoted hourly prices; texts are cut at the model's limit."""
    limit = find_planned_model(example.model).max_tokens or tokens
    return plan(
        example.model,
        samples=samples,
        tokens=min(tokens, limit),
        epochs=epochs,
        methods=example.methods,
        gpus=example.gpus,
        price_list=PRICES,
    ).rows


def deployment_row(example: DeploymentExample, rate: float | None, inputs: int, outputs: int) -> DeployRow:
    """Return the plan's row at the quoted hourly price; an encoder generates nothing; texts are cut at its limit."""
    model = find_planned_model(example.model)
    outputs = outputs if model.spec.causal else 0
    limit = model.max_tokens or inputs + outputs
    found = deploy_cost(
        example.model,
        rate=rate,
        input_tokens=min(inputs, limit - outputs),
        output_tokens=outputs,
        gpus=example.gpu,
        price_list=PRICES,
    )
    return found.rows[0]
