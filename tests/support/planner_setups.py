"""Setups and wishes that the planner's tests start from."""

from __future__ import annotations

from typing import Any

from tunedeck.methods.registry import config_of
from tunedeck.planner.memory import Setup, TrainingStack, method_facts
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.plan import PlanRequest
from tunedeck.planner.workload import Workload

TRANSFORMERS = TrainingStack("transformers", full_copies=False, lora_inputs_in_float32=True)
WORK = Workload(10_000, 3.0, 512.0, 512, 0.1, "--samples", counted=True)


def setup(model: str, kind: str = "lora", *, rows: int = 1, tokens: int = 512, **more: Any) -> Setup:
    spec = find_planned_model(model).spec
    method = config_of(kind, more.pop("settings", {}))
    generate = more.pop("generate", spec.causal)
    return Setup(spec, method, method_facts(spec, method), rows, tokens, generate, **more)


def wish(model: str, *names: str, work: Workload = WORK, **more: Any) -> PlanRequest:
    planned = find_planned_model(model)
    methods = {name: config_of("lora" if name == "qlora" else name, {}) for name in names or ("lora",)}
    task = "generate" if planned.spec.causal else "classify"
    return PlanRequest(model=planned, methods=methods, workload=work, task=task, **more)
